//! `ambit node`: the agent of a node.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_common::{capture::Listener, splice::Offsets};
use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{bind, memory, told_to_stop};
use crate::{
    admin::{
        AdminSource, CaptureView, CertificateView, CertificatesView, Limits, ProblemView,
        Readiness, SourceView, SpliceView, StatusView, TunnelsView, serve_admin, serve_metrics,
        serve_readiness,
    },
    capture::{self, BoundPods, Capture, publish::LeftOut, splice::Splice},
    discovery::{
        model::ObjectName,
        problems::{ProblemKind, Problems},
        source::{self, Source},
        store::{Snapshot, Store},
    },
    identity::{
        Certificates,
        ca_client::{self, CaClient},
        certificates::CertificateState,
    },
    policy::PolicySet,
    proxy::{
        CoreParts, Parts, Proxy,
        connections::{ConnectionView, Connections},
        dial::Marking,
        listener,
        route::MissingWaypoint,
    },
    splice,
    telemetry::{Metrics, logging::Logging, metrics::MetricsOptions},
    waypoint::supervisor::supervise,
};

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// This node's name.
    pub node: Arc<str>,
    /// Where Kubernetes objects come from.
    pub source: source::Settings,
    /// The cluster's name in telemetry.
    pub cluster: Arc<str>,
    /// The end of services' DNS names.
    pub cluster_domain: Arc<str>,
    /// Trust domain of all identities.
    pub trust_domain: Arc<str>,
    /// The certificate authority.
    pub authority: ca_client::Settings,
    /// The capture.
    pub capture: capture::Settings,
    /// The splice.
    pub splice: splice::Settings,
    /// What becomes of connections whose waypoint isn't ready.
    pub waypoint_missing: MissingWaypoint,
    /// Most open connections.
    pub max_connections: usize,
    /// How long they may go on after SIGTERM.
    pub drain: Duration,
    /// The operator's endpoint.
    pub admin_address: SocketAddr,
    /// `/metrics`.
    pub metrics_address: SocketAddr,
    /// `/healthz/ready`.
    pub ready_address: SocketAddr,
}

/// Runs until told to stop, then drains. What is captured stays captured: a successor takes over,
/// or the kernel does as `--without-agent` says.
///
/// # Errors
/// What kept it from starting, or ended it.
pub async fn run(settings: Settings, logging: Logging) -> Result<()> {
    memory::keep_little();
    let started = Instant::now();
    let stop = CancellationToken::new();
    let readiness = Readiness::default();
    let captured = readiness.condition("capture");
    let metrics = Metrics::new(MetricsOptions {
        cluster: settings.cluster.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        ..MetricsOptions::default()
    })?;
    metrics.observe_log_drops(logging.dropped_lines())?;
    let supervision = super::waypoint::supervision(&settings, &logging)?;

    // What is known: complete before anything is captured, so that nothing known looks unknown.
    let policies = PolicySet::default();
    let lets = settings.waypoint_missing == MissingWaypoint::Allow;
    let store = Arc::new(Store::new(policies.letting_past_waypoints(lets)));
    let opening = Source::open(
        settings.source.clone(),
        settings.trust_domain.clone(),
        store.clone(),
    );
    let truth = tokio::select! {
        opened = opening => opened?,
        told = told_to_stop() => return told.context("waiting for signals"),
    };
    let problems = truth.problems();
    let counted = problems.clone();
    metrics.observe_problems(move || counted.list().len())?;

    let certificates = Certificates::new(Arc::new(CaClient::new(settings.authority)));
    let connections = Arc::new(Connections::new(
        settings.node.clone(),
        settings.max_connections,
    ));
    let bound = BoundPods::default();
    // Endpoints of the agent's own before those for traffic: a port that is taken shows early.
    let admin = bind(settings.admin_address, "--admin-address").await?;
    let metrics_listener = bind(settings.metrics_address, "--metrics-address").await?;
    let ready = bind(settings.ready_address, "--ready-address").await?;
    let counted = certificates.clone();
    metrics.observe_certificates(move || counted.states())?;

    let prepared = splice::prepare(&settings.splice);
    let capture_settings = capture::Settings {
        splice: prepared.as_ref().ok().cloned(),
        ..settings.capture
    };
    let (mut capture, loaded) =
        Capture::start(capture_settings, store.clone(), bound.clone()).await?;
    metrics.observe_capture(move || loaded.counters.read())?;
    let splice = start_splice(prepared, loaded.splice, settings.splice).await?;
    metrics.observe_splice(splice.active, move || loaded.splice_counters.read())?;
    let proxy = Proxy::new(Parts {
        core: CoreParts {
            cluster: settings.cluster.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            store: store.clone(),
            certificates: certificates.clone(),
            connections: connections.clone(),
            metrics: metrics.clone(),
            marking: Marking::Agents,
        },
        bound: bound.clone(),
        node: settings.node.clone(),
        passes: loaded.passes,
        missing: settings.waypoint_missing,
    });

    let counted = proxy.clone();
    metrics.observe_tunnels(move || counted.tunnels())?;

    let left_out = capture.left_out();
    let counted = left_out.clone();
    metrics.observe_left_out(move || counted.count())?;

    let known = store.clone();
    let source = Arc::new(Operator {
        started,
        node: settings.node.clone(),
        source: settings.source,
        readiness: readiness.clone(),
        store,
        bound,
        left_out,
        splice,
        proxy: proxy.clone(),
        metrics: metrics.clone(),
        connections: connections.clone(),
        certificates,
        problems,
    });

    let waypoints_stop = stop.child_token();
    let waypoints = supervise(supervision, known, waypoints_stop.clone());
    let waypoints = tokio::spawn(waypoints);
    let mut tasks = JoinSet::new();
    tasks.spawn(truth.run(stop.clone()));
    tasks.spawn(proxy.clone().follow());
    for (role, is_ipv6, listener) in listener::captured(capture::has_ipv6())? {
        // From here on what is captured comes to us.
        capture.serve(role, is_ipv6, &listener)?;
        tasks.spawn(proxy.clone().serve(role, listener));
    }
    tasks.spawn(proxy.clone().follow_passed(loaded.events));
    for listener in listener::tunnels(capture::has_ipv6())? {
        tasks.spawn(proxy.clone().serve(Listener::Tunnel, listener));
    }
    let limits = Limits::default();
    tasks.spawn(serve_metrics(
        metrics_listener,
        metrics,
        limits,
        stop.clone(),
    ));
    tasks.spawn(serve_readiness(ready, readiness, limits, stop.clone()));
    tasks.spawn(memory::give_back_when_idle(move || connections.is_empty()));
    let log = logging.control();
    let admin_stop = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = serve_admin(admin, source, log, limits, admin_stop).await {
            tracing::error!("{error}");
        }
    });

    let node = settings.node.clone();
    let on_ready = move || {
        captured.set(true);
        memory::give_back();
        tracing::info!(%node, "ready");
    };
    let mut capturing = tokio::spawn(capture.run(on_ready, stop.clone()));
    let ended = tokio::select! {
        told = told_to_stop() => told.context("waiting for signals").map(|()| None),
        // Without it new pods would go unnoticed: better that a supervisor starts another agent.
        ended = &mut capturing => Ok(Some(ended)),
    };
    waypoints_stop.cancel();
    proxy.drain(settings.drain).await;
    waypoints.await?;
    stop.cancel();
    match ended? {
        Some(result) => result?.context("the capture ended")?,
        None => capturing.await?.context("the capture ended")?,
    }
    tasks.shutdown().await;
    Ok(())
}

/// Switches the splice on if it can be had. Without it the same bytes go through TCP.
async fn start_splice(
    prepared: Result<Offsets, splice::Error>,
    programs: Option<Result<Splice, capture::splice::Error>>,
    settings: splice::Settings,
) -> Result<SpliceView> {
    let start = move || {
        prepared?;
        match programs {
            Some(programs) => splice::start(programs?, &settings),
            None => Err(splice::Error::Unwanted),
        }
    };
    let started = tokio::task::spawn_blocking(start).await?;
    match &started {
        Ok(()) => tracing::info!("splice on: bytes of this node's applications go past TCP"),
        Err(splice::Error::Unwanted) => {}
        Err(error) => tracing::warn!("splice off, all bytes go through TCP: {error}"),
    }
    Ok(SpliceView {
        active: started.is_ok(),
        reason: started.err().map(|error| error.to_string()),
    })
}

/// What the admin endpoint shows.
struct Operator {
    started: Instant,
    node: Arc<str>,
    source: source::Settings,
    readiness: Readiness,
    store: Arc<Store>,
    bound: BoundPods,
    left_out: LeftOut,
    splice: SpliceView,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    certificates: Certificates,
    problems: Problems,
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
            uptime_seconds: self.started.elapsed().as_secs(),
            conditions: conditions
                .map(|(name, holds)| (name.to_owned(), holds))
                .collect(),
            source: self.source(),
            capture: CaptureView::of(
                &self.store.snapshot(),
                &self.node,
                |uid| self.bound.contains(uid),
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
