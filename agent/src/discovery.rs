//! What the mesh knows: workloads, services and policies, from a source of truth to the store.

pub mod model;
pub mod store;
