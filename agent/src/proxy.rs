//! The data path: connections from capture to pod.

pub mod connections;
