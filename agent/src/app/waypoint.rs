//! `ambit waypoint`: a waypoint, in a pod of its own or as a child of a node's agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{bind, told_to_stop};
use crate::{
    admin::{Limits, Readiness, serve_metrics, serve_readiness},
    discovery::{
        model::ObjectName,
        source::{self, Source},
        store::Store,
    },
    identity::{
        Certificates, Identity,
        ca_client::{self, CaClient},
    },
    proxy::{CoreParts, connections::Connections, dial::Marking},
    telemetry::{Metrics, logging::Logging, metrics::MetricsOptions},
    waypoint::{Parts, Waypoint},
};

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// The Gateway that it is.
    pub gateway: ObjectName,
    /// The node that it runs on.
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
    /// Where HBONE is taken.
    pub listen: Vec<SocketAddr>,
    /// Most open connections.
    pub max_connections: usize,
    /// How long they may go on after SIGTERM.
    pub drain: Duration,
    /// `/metrics`.
    pub metrics_address: SocketAddr,
    /// `/healthz/ready`.
    pub ready_address: SocketAddr,
}

/// Runs until told to stop, then drains.
///
/// # Errors
/// What kept it from starting.
pub async fn run(settings: Settings, logging: Logging) -> Result<()> {
    let stop = CancellationToken::new();
    let readiness = Readiness::default();
    let listening = readiness.condition("listeners");
    let metrics = Metrics::new(MetricsOptions {
        cluster: settings.cluster.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        ..MetricsOptions::default()
    })?;
    metrics.observe_log_drops(logging.dropped_lines())?;
    let metrics_listener = bind(settings.metrics_address, "--metrics-address").await?;
    let ready = bind(settings.ready_address, "--ready-address").await?;

    let mut tasks = JoinSet::new();
    let limits = Limits::default();
    tasks.spawn(serve_readiness(ready, readiness, limits, stop.clone()));

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
    metrics.observe_problems(move || problems.list().len())?;

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

    let connections = Connections::new(settings.node, settings.max_connections);
    let waypoint = Waypoint::new(Parts {
        core: CoreParts {
            cluster: settings.cluster,
            cluster_domain: settings.cluster_domain,
            store,
            certificates: certificates.clone(),
            connections: Arc::new(connections),
            metrics: metrics.clone(),
            marking: Marking::None,
        },
        gateway: gateway.clone(),
        identity: identity.clone(),
    });
    let counted = waypoint.clone();
    metrics.observe_tunnels(move || counted.core().tunnels())?;
    tasks.spawn(truth.run(stop.clone()));
    tasks.spawn(waypoint.clone().follow());
    for address in settings.listen {
        let listener = bind(address, "--listen").await?;
        tasks.spawn(waypoint.clone().serve(listener));
    }
    tasks.spawn(serve_metrics(
        metrics_listener,
        metrics,
        limits,
        stop.clone(),
    ));
    let (named, is_ready) = (gateway.clone(), certificates);
    tasks.spawn(async move {
        // Without a certificate nobody can be served.
        while let Err(error) = is_ready.certificate(&identity).await {
            tracing::warn!("not ready: {error}");
        }
        listening.set(true);
        tracing::info!(gateway = %named, "waypoint ready");
    });

    told_to_stop().await.context("waiting for signals")?;
    waypoint.core().drain(settings.drain).await;
    stop.cancel();
    tasks.shutdown().await;
    Ok(())
}
