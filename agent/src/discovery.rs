//! What the mesh knows: workloads, services and policies, from a source of truth to the store.
//!
//! A [`source`] (a [`directory`], or [`kubernetes`]) hands objects to [`reduce`], which
//! checks them and keeps what the mesh needs; the [`store`] joins them and publishes the result.

pub mod directory;
pub mod facts;
pub mod kubernetes;
pub mod manifest;
pub mod model;
pub mod problems;
pub mod reduce;
mod schema;
pub mod source;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
