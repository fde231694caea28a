//! What the mesh knows: workloads, services and policies, from a source of truth to the store.
//!
//! A source ([`directory`], or a watch of the Kubernetes API) hands objects to [`reduce`], which
//! checks them and keeps what the mesh needs; the [`store`] joins them and publishes the result.

pub mod directory;
pub mod facts;
pub mod manifest;
pub mod model;
pub mod reduce;
pub mod store;
