//! What this mesh costs, against sidecars and against nothing.

mod measurement;
