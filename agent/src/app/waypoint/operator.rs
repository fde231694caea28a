//! What a waypoint tells its operator.

use std::sync::Arc;

use crate::{
    admin::{AdminSource, CertificateView, PlaintextView, ProblemView, StatusView},
    app::views,
    discovery::{
        problems::Problems,
        store::{Snapshot, Store},
    },
    explain::NodeFacts,
    identity::Certificates,
    proxy::connections::{ConnectionView, Connections},
    telemetry::Metrics,
};

/// What the admin endpoint shows.
pub(super) struct Operator {
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Arc<Connections>,
    pub(super) certificates: Certificates,
    pub(super) problems: Problems,
}

impl AdminSource for Operator {
    fn status(&self) -> Option<StatusView> {
        None
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.store.snapshot()
    }

    fn connections(&self) -> Vec<ConnectionView> {
        self.connections.list()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        views::certificates(&self.certificates)
    }

    fn problems(&self) -> Vec<ProblemView> {
        views::problems(&self.problems, &self.store.snapshot())
    }

    fn plaintext(&self) -> Option<PlaintextView> {
        None
    }

    fn facts(&self) -> Option<&dyn NodeFacts> {
        None
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
