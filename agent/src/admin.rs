//! The agent's own HTTP endpoints: metrics, readiness, and the operator's view on loopback.

mod readiness;
mod routes;
mod server;
mod views;

pub use self::{
    readiness::{Condition, Readiness},
    routes::{AdminError, AdminSource, serve_admin, serve_metrics, serve_readiness},
    server::Limits,
    views::{CertificateView, EndpointView, ProblemView, ServiceView, WorkloadView},
};

#[cfg(test)]
mod tests;
