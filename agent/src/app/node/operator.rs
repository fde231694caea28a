//! What the agent tells its operator.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    admin::{
        AdminSource, CaptureView, CertificateView, CertificatesView, PlaintextView, ProblemView,
        Readiness, SourceView, SpliceView, StatusView, TunnelsView,
    },
    app::views,
    capture::{BoundPods, passed::Passes, publish::LeftOut},
    discovery::{
        problems::{ProblemKind, Problems},
        source,
        store::{Snapshot, Store},
    },
    explain::NodeFacts,
    identity::Certificates,
    proxy::{
        Proxy,
        connections::{ConnectionView, Connections},
        route::MissingWaypoint,
    },
    telemetry::Metrics,
};

/// What the admin endpoint shows.
pub(super) struct Operator {
    pub(super) started: Instant,
    pub(super) node: Arc<str>,
    pub(super) instance: Option<String>,
    pub(super) source: source::Settings,
    pub(super) readiness: Readiness,
    pub(super) store: Arc<Store>,
    pub(super) bound: BoundPods,
    pub(super) left_out: LeftOut,
    pub(super) splice: SpliceView,
    pub(super) proxy: Arc<Proxy>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Arc<Connections>,
    pub(super) certificates: Certificates,
    pub(super) problems: Problems,
    pub(super) passes: Passes,
    pub(super) missing: MissingWaypoint,
}

impl Operator {
    fn source(&self) -> SourceView {
        let problems = self.problems.list();
        let reason = problems.iter().find_map(|problem| match &problem.kind {
            ProblemKind::NotFollowed { .. } => Some(problem.kind.to_string()),
            _ => None,
        });
        SourceView {
            kind: self.source.kind().to_owned(),
            location: self.source.location(),
            in_sync: reason.is_none(),
            reason,
        }
    }
}

impl AdminSource for Operator {
    fn status(&self) -> Option<StatusView> {
        let conditions = self.readiness.conditions().into_iter();
        Some(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.to_string(),
            instance: self.instance.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            conditions: conditions
                .map(|(name, holds)| (name.to_owned(), holds))
                .collect(),
            source: self.source(),
            capture: CaptureView::of(
                &self.store.snapshot(),
                &self.node,
                |uid| self.bound.contains(uid),
                |uid| self.bound.why_not(uid).map(|reason| reason.to_string()),
                self.left_out.count(),
            ),
            splice: self.splice.clone(),
            connections: self.connections.len(),
            tunnels: TunnelsView {
                outbound: self.proxy.tunnels(),
                inbound: self.metrics.inbound_tunnels(),
            },
            certificates: CertificatesView::of(&self.certificates(), Timestamp::now()),
            problems: self.problems().len(),
        })
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

    fn plaintext(&self) -> Option<PlaintextView> {
        let snapshot = self.store.snapshot();
        let times = (self.started, Instant::now());
        let clients = self.proxy.plaintext_clients();
        Some(PlaintextView::of(&snapshot, &self.node, clients, times))
    }

    fn facts(&self) -> Option<&dyn NodeFacts> {
        Some(self)
    }

    fn problems(&self) -> Vec<ProblemView> {
        views::problems(&self.problems, &self.store.snapshot())
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
