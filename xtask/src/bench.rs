//! What this mesh costs, against sidecars and against nothing.

mod machine;
mod measurement;
mod statistics;
