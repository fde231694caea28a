//! `ambit waypoint`: a waypoint, in a pod of its own or as a child of a node's agent.

mod operator;

use std::{
    env,
    ffi::{OsStr, OsString},
    future, io, mem,
    net::{IpAddr, SocketAddr},
    os::{fd::AsFd, unix::net},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{io::AsyncReadExt, net::UnixStream, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use self::operator::Operator;
use super::{
    confine::{Children, confine},
    descriptors, memory, node, told_to_stop,
};
use crate::{
    admin::{Limits, Readiness, serve_admin, serve_metrics, serve_readiness},
    discovery::{
        model::ObjectName,
        source::{self, Source},
        store::Store,
    },
    identity::{
        Certificates, Identity,
        ca_client::{self, CaClient},
    },
    proxy::{
        CoreParts,
        connections::{self, Connections},
        dial::Marking,
        listener,
    },
    takeover::{self, Inherited},
    telemetry::{Metrics, ResilienceMetrics, logging::Logging, metrics::MetricsOptions, trace},
    waypoint::{Parts, Waypoint, supervisor},
};

/// For how long a waypoint in a pod of its own takes connections after SIGTERM, as Kubernetes sends it while agents
/// are still being told that the pod is one no longer.
const NOTICE: Duration = Duration::from_secs(5);
/// How long one that an agent started waits for its certificate before it takes connections: that of an agent
/// which is being relieved takes them meanwhile, or else they wait.
const WARM_UP: Duration = Duration::from_secs(5);

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// The Gateway that it is.
    pub gateway: ObjectName,
    /// The node that it runs on.
    pub node: Arc<str>,
    /// The address of its pod, if it has one of its own.
    pub pod_address: Option<IpAddr>,
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
    /// Where its spans go.
    pub tracing: trace::Settings,
    /// Where HBONE is taken.
    pub listen: Vec<SocketAddr>,
    /// Most open connections.
    pub max_connections: usize,
    /// How long they may go on after SIGTERM.
    pub drain: Duration,
    /// Ends when standard input does.
    pub supervised: bool,
    /// The operator's.
    pub admin_address: SocketAddr,
    /// `/metrics`.
    pub metrics_address: SocketAddr,
    /// `/healthz/ready`.
    pub ready_address: SocketAddr,
}

/// How the agent of a node runs waypoints: by its own settings.
///
/// # Errors
/// If it can't be found out which program this is, or how it logs.
pub(super) fn supervision(
    agent: &node::Settings,
    logging: &Logging,
) -> Result<supervisor::Settings> {
    let authority = &agent.authority;
    let validity = format!("{}s", authority.validity.as_secs());
    let mut arguments: Vec<OsString> = Vec::new();
    arguments.extend(logging.arguments()?.map(OsString::from));
    let mut set = |flag: &str, value: &OsStr| arguments.extend([flag.into(), value.to_owned()]);
    // Agents that follow an API server run none.
    if let source::Settings::Directory(path) = &agent.source {
        set("--directory", path.as_os_str());
    }
    set("--source", "directory".as_ref());
    set("--cluster", agent.cluster.as_ref().as_ref());
    set("--cluster-domain", agent.cluster_domain.as_ref().as_ref());
    set("--trust-domain", agent.trust_domain.as_ref().as_ref());
    set("--ca-address", authority.address.as_ref());
    set("--ca-root", authority.root_file.as_os_str());
    set("--ca-token", authority.token_file.as_os_str());
    set("--certificate-ttl", validity.as_ref());
    let connections = agent.max_connections.to_string();
    set("--max-connections", connections.as_ref());
    arguments.extend(agent.tracing.arguments().into_iter().map(OsString::from));
    Ok(supervisor::Settings {
        program: env::current_exe().context("finding this program, to start waypoints with")?,
        node: agent.node.clone(),
        arguments,
        drain: agent.drain,
    })
}

/// Runs until told to stop, then drains.
///
/// # Errors
/// What kept it from starting.
pub async fn run(settings: Settings, logging: Logging) -> Result<()> {
    let stop = CancellationToken::new();
    // A child's own endpoints, which its successor has while this one drains.
    let endpoints = stop.child_token();
    let readiness = Readiness::default();
    let listening = readiness.condition("listeners");
    let metrics = Metrics::new(MetricsOptions {
        cluster: settings.cluster.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        ..MetricsOptions::default()
    })?;
    metrics.observe_log_drops(logging.dropped_lines())?;
    let (agent, mut inherited) = match settings.supervised {
        true => agent()
            .await
            .map(|(agent, sockets)| (Some(agent), sockets))?,
        false => (None, Inherited::default()),
    };
    let mut bind = |address, option| {
        listener::own(address, &mut inherited)
            .with_context(|| format!("listening on {address}; {option} chooses another"))
    };
    let admin = bind(settings.admin_address, "--admin-address")?;
    let metrics_listener = bind(settings.metrics_address, "--metrics-address")?;
    let ready = bind(settings.ready_address, "--ready-address")?;

    let mut tasks = JoinSet::new();
    let limits = Limits::default();
    tasks.spawn(serve_readiness(ready, readiness, limits, endpoints.clone()));

    // What is known: complete before anybody is served.
    let store = Arc::new(Store::default());
    let opening = Source::open(
        settings.source,
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

    // Its one certificate.
    let gateway = &settings.gateway;
    let identity = Identity::new(
        settings.trust_domain.clone(),
        gateway.namespace.clone(),
        gateway.name.clone(),
    );
    let certificates = Certificates::new(Arc::new(CaClient::new(settings.authority)));
    certificates.prefetch(&identity)?;
    let counted = certificates.clone();
    metrics.observe_certificates(move || counted.states())?;

    let resource = [
        ("service.name", &*gateway.name),
        ("service.namespace", &*gateway.namespace),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.cluster.name", &*settings.cluster),
        ("k8s.namespace.name", &*gateway.namespace),
        ("k8s.node.name", &*settings.node),
    ];
    let (tracer, exporter) = settings.tracing.tracer(&resource)?;
    // After all requests have ended.
    let exported = CancellationToken::new();
    let exporting = match exporter {
        Some(exporter) => {
            exporter.queue().counts().observe(&metrics)?;
            Some(tokio::spawn(exporter.run(exported.clone())))
        }
        None => None,
    };

    let total = descriptors::connections(settings.max_connections);
    let most = connections::Limits {
        total,
        per_pod: total,
    };
    let connections = Arc::new(Connections::new(settings.node.clone(), most));
    let operator = Arc::new(Operator {
        store: store.clone(),
        metrics: metrics.clone(),
        connections: connections.clone(),
        certificates: certificates.clone(),
        problems,
    });
    let waypoint = Waypoint::new(Parts {
        core: CoreParts {
            cluster: settings.cluster,
            cluster_domain: settings.cluster_domain,
            store,
            certificates: certificates.clone(),
            connections,
            metrics: metrics.clone(),
            marking: Marking::None,
        },
        gateway: gateway.clone(),
        identity: identity.clone(),
        node: settings.node,
        pod_address: settings.pod_address,
        tracer,
        resilience: ResilienceMetrics::register(&metrics)?,
    });
    let counted = waypoint.clone();
    metrics.observe_tunnels(move || counted.core().tunnels())?;
    let counted = waypoint.clone();
    let ejected = move || counted.resilience().ejected(std::time::Instant::now());
    ResilienceMetrics::observe_ejected(&metrics, ejected)?;
    tasks.spawn(truth.run(stop.clone()));
    tasks.spawn(waypoint.clone().follow());
    for address in settings.listen {
        let serve = waypoint.clone().serve(bind(address, "--listen")?);
        let warm_up = warm_up(certificates.clone(), identity.clone());
        let is_relieving = settings.supervised;
        tasks.spawn(async move {
            if is_relieving {
                warm_up.await;
            }
            serve.await;
        });
    }
    let log = logging.control();
    let serving = serve_admin(admin, operator, log, limits, endpoints.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!("{error}");
        }
    });
    let is_idle = rest(metrics.clone());
    tasks.spawn(memory::give_back_when_idle(memory::WAYPOINT_LOOK, is_idle));
    tasks.spawn(serve_metrics(
        metrics_listener,
        metrics,
        limits,
        endpoints.clone(),
    ));
    let (named, is_ready) = (gateway.clone(), certificates);
    tasks.spawn(async move {
        // Without a certificate nobody can be served.
        while let Err(error) = is_ready.certificate(&identity).await {
            tracing::warn!("not ready: {error}");
        }
        listening.set(true);
        memory::give_back();
        tracing::info!(gateway = %named, "waypoint ready");
    });

    confine(Children::None);
    let drain = tokio::select! {
        told = told_to_stop() => told.context("waiting for signals").map(|()| settings.drain)?,
        () = orphaned(agent) => {
            tracing::error!("the agent that started this waypoint is gone: it ends");
            Duration::ZERO
        }
    };
    let notice = match settings.supervised {
        // Its successor has its sockets.
        true => Duration::ZERO,
        false => NOTICE,
    };
    if settings.supervised {
        endpoints.cancel();
    }
    waypoint.core().drain_after(notice, drain).await;
    stop.cancel();
    tasks.shutdown().await;
    exported.cancel();
    if let Some(exporting) = exporting {
        exporting.await.context("sending the last spans")?;
    }
    Ok(())
}

/// Tells at each call whether nothing has gone through the waypoint since the one before.
fn rest(metrics: Arc<Metrics>) -> impl FnMut() -> bool {
    let mut before = metrics.activity();
    move || {
        let now = metrics.activity();
        now.is_rest_since(mem::replace(&mut before, now))
    }
}

/// Waits for the one certificate, for a time: another may still be taking connections meanwhile.
async fn warm_up(certificates: Certificates, identity: Identity) {
    // Why there is none is told where it's asked for.
    let _ = time::timeout(WARM_UP, certificates.certificate(&identity)).await;
}

/// The stream to the agent that started this, and the sockets that it has sent.
async fn agent() -> Result<(UnixStream, Inherited)> {
    let take = || {
        let stream = net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    };
    let stream = take().context("taking the stream to the agent that started this")?;
    let given = takeover::given(&stream).await;
    let sockets = given.context("being given sockets; --supervised is for agents to say")?;
    Ok((stream, sockets))
}

/// Waits until the agent that started it is gone, if one did. Its end of the stream closes however it ends, and
/// whichever of its threads did start it, which a signal for the death of a parent would ask for.
async fn orphaned(agent: Option<UnixStream>) {
    let Some(mut agent) = agent else {
        return future::pending().await;
    };
    // It says nothing more.
    let _ = agent.read(&mut [0]).await;
}
