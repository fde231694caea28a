//! `ambit node`: the agent of a node.

mod facts;
mod operator;
mod serving;

use std::{
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_common::splice::Offsets;
use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::serving::Endpoints;
use self::{operator::Operator, serving::Serving};
use super::{
    confine::{Children, confine},
    descriptors, memory, told_to_stop,
};
use crate::{
    admin::{Readiness, SpliceView},
    capture::{self, BoundPods, Capture, splice::Splice},
    discovery::{
        source::{self, Source},
        store::Store,
    },
    identity::{
        Certificates,
        ca_client::{self, CaClient},
    },
    policy::PolicySet,
    proxy::{
        CoreParts, Parts, Proxy,
        connections::{Connections, Limits},
        dial::Marking,
        route::MissingWaypoint,
    },
    reporting, splice,
    takeover::{self, Predecessor},
    telemetry::{Metrics, logging::Logging, metrics::MetricsOptions, trace},
    waypoint::supervisor::{Sockets, supervise},
};

/// How long to wait for certificates before connections are taken over from an agent that has them.
const WARM_UP: Duration = Duration::from_secs(5);

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
    /// Where the spans of its waypoints go.
    pub tracing: trace::Settings,
    /// The capture.
    pub capture: capture::Settings,
    /// The splice.
    pub splice: splice::Settings,
    /// What becomes of connections whose waypoint isn't ready.
    pub waypoint_missing: MissingWaypoint,
    /// Most open connections.
    pub max_connections: usize,
    /// Most of one pod.
    pub max_connections_per_pod: Option<usize>,
    /// How long they may go on after SIGTERM, or once another agent has taken over.
    pub drain: Duration,
    /// Where agents of this node meet.
    pub run_directory: PathBuf,
    /// What to do once another agent has taken over, and nothing is open any more.
    pub when_replaced: WhenReplaced,
    /// Tells this agent from another of the node.
    pub instance: Option<String>,
    /// The agent's own endpoints.
    pub endpoints: Endpoints,
}

/// What an agent does that isn't needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenReplaced {
    /// It ends.
    Exit,
    /// It waits to be told to, for a supervisor that would start it anew; should nobody lead the node
    /// meanwhile, it ends so that it is.
    Wait,
}

/// Runs until told to stop or another agent takes over, then drains. What is captured stays captured: a
/// successor has it, or the kernel does as `--without-agent` says.
///
/// # Errors
/// What kept it from starting, or ended it.
pub async fn run(settings: Settings, logging: Logging) -> Result<()> {
    let started = Instant::now();
    let mut told = pin!(told_to_stop());
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
        told = &mut told => return told.context("waiting for signals"),
    };
    let problems = truth.problems();
    let counted = problems.clone();
    metrics.observe_problems(move || counted.list().len())?;

    let authority = CaClient::new(settings.authority);
    let certificates = Certificates::new(Arc::new(authority.clone()));
    let total = descriptors::connections(settings.max_connections);
    let per_pod = settings.max_connections_per_pod.unwrap_or(total);
    let limits = Limits { total, per_pod };
    let connections = Arc::new(Connections::new(settings.node.clone(), limits));
    let bound = BoundPods::default();
    let counted = certificates.clone();
    metrics.observe_certificates(move || counted.states())?;
    let prepared = splice::prepare(&settings.splice);
    capture::layout::check_pinned(&settings.capture.bpffs)?;

    // From here on another agent that ran only takes connections, until this one does.
    let leading = takeover::lead(&settings.run_directory);
    let (lead, mut inherited, predecessor) = tokio::select! {
        leading = leading => leading?,
        told = &mut told => return told.context("waiting for signals"),
    };
    // Endpoints of the agent's own before those for traffic: a port that is taken shows early.
    let mut serving = Serving::open(&settings.endpoints, &mut inherited)?;
    let capture_settings = capture::Settings {
        splice: prepared.as_ref().ok().cloned(),
        ..settings.capture
    };
    let (mut capture, loaded) =
        Capture::start(capture_settings, store.clone(), bound.clone()).await?;
    metrics.observe_capture(move || loaded.counters.read())?;
    let splice = start_splice(prepared, loaded.splice, settings.splice).await?;
    metrics.observe_splice(splice.active, move || loaded.splice_counters.read())?;
    let passes = loaded.passes;
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
        passes: passes.clone(),
        missing: settings.waypoint_missing,
    });

    let counted = proxy.clone();
    metrics.observe_tunnels(move || counted.tunnels())?;

    let left_out = capture.left_out();
    let counted = left_out.clone();
    metrics.observe_left_out(move || counted.count())?;

    let known = store.clone();
    let children = Children::of(&settings.source);
    let mut tasks = JoinSet::new();
    let leads_no_more = CancellationToken::new();
    if let source::Settings::Kubernetes { .. } = settings.source {
        let (node, store) = (settings.node.clone(), store.clone());
        let reporting = reporting::report(node, store, bound.clone(), authority);
        let until = leads_no_more.clone();
        tasks.spawn(async move {
            until.run_until_cancelled(reporting).await;
        });
    }
    let source = Arc::new(Operator {
        started,
        node: settings.node.clone(),
        instance: settings.instance,
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
        passes,
        missing: settings.waypoint_missing,
    });

    tasks.spawn(truth.run(stop.clone()));
    tasks.spawn(proxy.clone().follow());
    if predecessor.is_some() {
        proxy.warm_up(WARM_UP).await;
    }
    confine(children);
    serving.captured(&mut capture, &proxy, &mut inherited)?;
    // What nobody has taken is what waypoints listen at.
    let sockets = Sockets::new(inherited);
    let no_waypoints = CancellationToken::new();
    let supervising = supervise(supervision, known, sockets.clone(), no_waypoints.clone());
    let waypoints = tokio::spawn(supervising);
    serving.endpoints(source, metrics, readiness, logging.control());
    tasks.spawn(proxy.clone().follow_passed(loaded.events));
    let is_idle = move || connections.is_empty();
    tasks.spawn(memory::give_back_when_idle(memory::AGENT_LOOK, is_idle));

    let node = settings.node.clone();
    let begin = serving.begin();
    tasks.spawn(relieve(predecessor, begin.clone()));
    let on_ready = move || {
        captured.set(true);
        memory::give_back();
        tracing::info!(%node, "ready");
        begin.cancel();
    };
    let mut capturing = tokio::spawn(capture.run(on_ready, leads_no_more.clone()));
    let mut failed = None;
    let successor = tokio::select! {
        told = &mut told => {
            told.context("waiting for signals")?;
            None
        }
        // Without it new pods would go unnoticed: better that a supervisor starts another agent.
        result = &mut capturing => {
            failed = Some(result);
            None
        }
        successor = lead.asked() => Some(successor),
    };

    // Whoever leads next finds nobody else who writes to the maps.
    proxy.retire();
    leads_no_more.cancel();
    let captured = match failed {
        Some(result) => result,
        None => capturing.await,
    };
    let (lead, relieved) = match successor {
        Some(successor) => (
            None,
            Some(serving.hand_over(successor, lead, &sockets).await),
        ),
        None => (Some(lead), None),
    };
    // A successor has started its own, at the same sockets.
    no_waypoints.cancel();
    serving.stop(&proxy).await;
    drop(lead);
    let limit = match &relieved {
        // Nobody leads, and a supervisor starts another agent only when this one has ended.
        Some(Err(_)) => Duration::ZERO,
        Some(Ok(())) | None => settings.drain,
    };
    proxy.drain(limit).await;
    waypoints.await?;
    stop.cancel();
    tasks.shutdown().await;
    captured?.context("the capture ended")?;
    match relieved {
        Some(Ok(())) if settings.when_replaced == WhenReplaced::Wait => tokio::select! {
            told = &mut told => told.context("waiting for signals"),
            () = takeover::vacant(&settings.run_directory) => {
                tracing::warn!("nobody leads this node any more: ending, to be started anew");
                Ok(())
            }
        },
        Some(relieved) => Ok(relieved?),
        None => Ok(()),
    }
}

/// Has the agent that led before stop taking connections, once this one does.
async fn relieve(predecessor: Option<Predecessor>, begun: CancellationToken) {
    let Some(predecessor) = predecessor else {
        return;
    };
    begun.cancelled().await;
    match predecessor.relieve().await {
        Ok(()) => tracing::info!("took over from the agent that led this node"),
        Err(error) => tracing::warn!("the agent that led this node is gone: {error}"),
    }
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
