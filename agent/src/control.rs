//! What control does in a cluster.
//!
//! The certificate authority has there, instead of files, its key in a Secret, its trust bundle in a ConfigMap, and
//! knows agents by the tokens of their service account: every replica serves. What must be done once is done by the
//! one that [leads](Leadership): it makes waypoints, and tells objects what is wrong with them.

mod conditions;
mod events;
mod key;
mod lease;
mod objects;
mod pod_states;
mod problems;
mod token_review;
pub mod waypoints;

pub use self::{
    events::{Error as EventError, Events, Notice},
    key::{ClusterKey, Error},
    lease::{Leadership, identity, while_leading},
    pod_states::PodStates,
    problems::ProblemPublisher,
    token_review::TokenReviewer,
};
