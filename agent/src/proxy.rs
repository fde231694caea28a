//! The data path: captured connections in, the mesh out, and the other way round.

pub mod copy;
