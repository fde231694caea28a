//! What this mesh costs, against sidecars and against nothing.

mod compare;
mod machine;
mod measurement;
mod report;
mod statistics;
