//! What the agent tells its operator.

use std::{net::IpAddr, sync::Arc, time::Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::{
    admin::{
        AdminSource, CaptureView, CertificateView, CertificatesView, PlaintextView, ProblemView,
        Readiness, SourceView, SpliceView, StatusView, TunnelsView, reason_to_wait,
    },
    capture::{BoundPods, passed::Passes, publish::LeftOut},
    discovery::{
        model::{ObjectName, Workload, WorkloadUid},
        problems::{ProblemKind, Problems},
        source,
        store::{Snapshot, Store},
    },
    explain::{InterfaceFacts, KernelVerdict, NodeFacts, Probe, ProbeError, Reached},
    identity::{Certificates, Identity, certificates::CertificateState},
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
    fn status(&self) -> StatusView {
        let conditions = self.readiness.conditions().into_iter();
        StatusView {
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
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.store.snapshot()
    }

    fn connections(&self) -> Vec<ConnectionView> {
        self.connections.list()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        self.certificates
            .states()
            .iter()
            .map(certificate_view)
            .collect()
    }

    fn plaintext(&self) -> PlaintextView {
        let snapshot = self.store.snapshot();
        let times = (self.started, Instant::now());
        PlaintextView::of(&snapshot, &self.node, self.proxy.plaintext_clients(), times)
    }

    fn facts(&self) -> &dyn NodeFacts {
        self
    }

    fn problems(&self) -> Vec<ProblemView> {
        let problems = self.problems.list();
        let snapshot = self.store.snapshot();
        let contested = snapshot
            .contested_addresses()
            .map(|(address, pods)| contested_view(address, pods));
        let of_objects = problems.iter().map(|problem| ProblemView {
            source: problem.origin.to_string(),
            object: problem.kind.object(),
            field: problem.kind.field().map(str::to_owned),
            message: problem.kind.to_string(),
        });
        of_objects.chain(contested).collect()
    }
}

impl NodeFacts for Operator {
    fn node(&self) -> &str {
        &self.node
    }

    fn interface(&self, pod: &Workload) -> Result<InterfaceFacts, String> {
        let found = self.bound.interface(&pod.uid).ok_or_else(|| {
            let reason = self.bound.why_not(&pod.uid).map(|it| it.to_string());
            reason_to_wait(pod, &self.store.snapshot(), reason)
        })?;
        Ok(InterfaceFacts {
            name: found.name.to_string(),
            index: found.index,
            mechanism: self.bound.mechanism(),
            is_attached: found.is_attached,
        })
    }

    fn verdict(&self, source: &Identity, destination: &WorkloadUid, port: u16) -> KernelVerdict {
        let generation = self.passes.generation();
        match self.passes.is_allowed(source, destination, port) {
            _ if !self.passes.is_on() => KernelVerdict::Off,
            true => KernelVerdict::Passes(generation),
            false => KernelVerdict::Asks(generation),
        }
    }

    fn certificate(&self, identity: &Identity) -> Option<CertificateView> {
        let states = self.certificates.states();
        let state = states.iter().find(|state| state.identity == *identity);
        state.map(certificate_view)
    }

    fn missing(&self) -> MissingWaypoint {
        self.missing
    }

    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<Reached, ProbeError>> {
        Box::pin(self.proxy.probe(probe))
    }
}

fn contested_view(address: IpAddr, pods: &[ObjectName]) -> ProblemView {
    let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
    ProblemView {
        source: "addresses of pods".to_owned(),
        object: pods.first().map(|first| format!("Pod {first}")),
        field: Some("status.podIPs".to_owned()),
        message: format!(
            "{address} is claimed by {}: the first has it",
            pods.join(", ")
        ),
    }
}

fn certificate_view(state: &CertificateState) -> CertificateView {
    let certificate = state.certificate.as_ref();
    let time = |time| Timestamp::try_from(time).ok().map(|time| time.to_string());
    CertificateView {
        identity: state.identity.to_string(),
        serial: certificate.map(|certificate| certificate.serial().to_owned()),
        not_before: certificate.and_then(|certificate| time(certificate.not_before())),
        not_after: certificate.and_then(|certificate| time(certificate.not_after())),
        error: state.error.as_ref().map(ToString::to_string),
    }
}
