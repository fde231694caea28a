//! The agent's own HTTP endpoints: metrics, readiness, and the operator's view on loopback.

mod guard;
mod observe;
mod page;
mod plaintext;
mod readiness;
mod routes;
mod server;
mod status;
mod views;

pub(crate) use self::status::reason_to_wait;
pub use self::{
    plaintext::{PlaintextClientView, PlaintextView},
    readiness::{Condition, Readiness},
    routes::{AdminError, AdminSource, serve_admin, serve_metrics, serve_readiness},
    server::Limits,
    status::{
        CaptureView, CertificatesView, SourceView, SpliceView, StatusView, TunnelsView,
        WaitingPodView,
    },
    views::{CertificateView, EndpointView, PolicyView, ProblemView, ServiceView, WorkloadView},
};

#[cfg(test)]
mod tests;
