//! `ambit control`: the certificate authority, and what a cluster is told of its objects, and made of its Gateways.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context, Result};
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    bind,
    confine::{Children, confine},
    descriptors, told_to_stop,
};
use crate::{
    admin::{Limits, Readiness, serve_metrics, serve_readiness},
    control::{
        ClusterKey, Events, Leadership, PodStates, ProblemPublisher, TokenReviewer, identity,
        waypoints, while_leading,
    },
    discovery::{
        directory::Directory,
        kubernetes::{self, Cluster},
        source::Source,
        store::Store,
    },
    identity::{
        authority::{self, CertificateAuthority},
        ca_service::{self, CallerAuthenticator, Parts, PodReports, TokenFile},
    },
    telemetry::control::ControlMetrics,
};

/// What the role is told.
#[derive(Debug)]
pub struct Settings {
    /// What is known, and where the key is.
    pub home: Home,
    /// Where agents call.
    pub listen: SocketAddr,
    /// How the server shows itself.
    pub service: ca_service::Settings,
    /// How it signs.
    pub authority: authority::Settings,
    /// `/metrics`, if it is served.
    pub metrics_address: Option<SocketAddr>,
    /// `/healthz/ready`, if it is served.
    pub ready_address: Option<SocketAddr>,
}

/// What the role works on.
#[derive(Debug)]
pub enum Home {
    /// Files.
    Directory {
        /// Manifests.
        manifests: PathBuf,
        /// Root, key and trust bundle.
        state: PathBuf,
        /// Tokens of nodes.
        node_tokens: PathBuf,
    },
    /// A cluster.
    Cluster {
        /// Where the API server is, if not here.
        kubeconfig: Option<PathBuf>,
        /// Of the Secret, the ConfigMap and the agents.
        namespace: String,
        /// The agents' service account.
        agents: String,
        /// What waypoints are to know.
        waypoints: waypoints::Settings,
    },
}

/// Runs until told to stop.
///
/// # Errors
/// What kept it from starting.
pub async fn run(settings: Settings) -> Result<()> {
    descriptors::raise();
    let stop = CancellationToken::new();
    let metrics = ControlMetrics::new()?;
    let readiness = Readiness::default();
    let listening = readiness.condition("authority");
    let mut tasks = JoinSet::new();
    if let Some(address) = settings.metrics_address {
        let listener = bind(address, "--metrics-address").await?;
        let (metrics, limits) = (metrics.clone(), Limits::default());
        tasks.spawn(serve_metrics(listener, metrics, limits, stop.clone()));
    }
    if let Some(address) = settings.ready_address {
        let listener = bind(address, "--ready-address").await?;
        let limits = Limits::default();
        tasks.spawn(serve_readiness(listener, readiness, limits, stop.clone()));
    }
    let children = match &settings.home {
        Home::Cluster { kubeconfig, .. } => Children::of_client(kubeconfig.as_deref()),
        Home::Directory { .. } => Children::None,
    };
    let store = Arc::new(Store::default());
    let opened = tokio::select! {
        opened = open(settings.home, settings.authority, &store) => opened?,
        told = told_to_stop() => return Ok(told?),
    };
    let authority = Arc::new(opened.authority);
    let counted = authority.clone();
    metrics.observe_rotation_failures(move || counted.rotation_failures())?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listening on {} for agents", settings.listen))?;

    let problems = opened.source.problems();
    let counted = problems.clone();
    metrics.observe_problems(move || counted.list().len())?;
    tasks.spawn(opened.source.run(stop.clone()));
    let mut reports: Option<Arc<dyn PodReports>> = None;
    if let Some(cluster) = opened.cluster {
        tasks.spawn(cluster.key.follow(authority.clone(), stop.clone()));
        let identity: Arc<str> = identity().into();
        let leadership = Leadership::new(&cluster.client, &cluster.namespace, identity.clone());
        let leading = leadership.leading();
        let counted = leading.clone();
        metrics.observe_leading(move || *counted.borrow())?;
        let events = Events::new(cluster.client.clone(), identity, metrics.clone());
        let states = PodStates::new(cluster.client.clone(), events.clone(), metrics.clone());
        reports = Some(Arc::new(states));
        let publisher = Arc::new(ProblemPublisher::new(
            cluster.client.clone(),
            store.clone(),
            problems,
            events,
            metrics.clone(),
        ));
        tasks.spawn(while_leading(leading.clone(), move || {
            let publisher = publisher.clone();
            async move { publisher.run().await }
        }));
        let (client, settings) = (cluster.client, cluster.waypoints);
        let (known, until) = (store.clone(), stop.clone());
        tasks.spawn(while_leading(leading, move || {
            waypoints::run(
                client.clone(),
                settings.clone(),
                known.clone(),
                until.clone(),
            )
        }));
        tasks.spawn(leadership.run(stop.clone()));
    }
    let parts = Parts {
        authority,
        authenticator: opened.authenticator,
        authorizer: store,
        reports,
        counts: metrics.certificates(),
    };
    let serving = tokio::spawn(ca_service::serve(
        settings.service,
        parts,
        listener,
        stop.clone(),
    ));
    confine(children);
    listening.set(true);
    tracing::info!(address = %settings.listen, "certificate authority ready");
    told_to_stop().await?;
    stop.cancel();
    serving.await??;
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

struct Opened {
    source: Source,
    authority: CertificateAuthority,
    authenticator: Arc<dyn CallerAuthenticator>,
    /// What is done in a cluster alone.
    cluster: Option<InCluster>,
}

struct InCluster {
    client: Client,
    namespace: String,
    /// To be followed.
    key: ClusterKey,
    /// What waypoints are to know.
    waypoints: waypoints::Settings,
}

async fn open(home: Home, authority: authority::Settings, store: &Arc<Store>) -> Result<Opened> {
    let trust_domain = authority.trust_domain.clone();
    match home {
        Home::Directory {
            manifests,
            state,
            node_tokens,
        } => Ok(Opened {
            source: Source::Directory(Box::new(
                Directory::open(manifests, trust_domain, store.clone()).await?,
            )),
            authority: CertificateAuthority::open(&state, authority, SystemTime::now())?,
            authenticator: Arc::new(TokenFile::open(&node_tokens)?),
            cluster: None,
        }),
        Home::Cluster {
            kubeconfig,
            namespace,
            agents,
            waypoints,
        } => {
            let client = kubernetes::client(kubeconfig.as_deref()).await?;
            let cluster = Cluster::open(client.clone(), trust_domain, store.clone()).await?;
            let mut key = ClusterKey::new(&client, &namespace);
            let reviewer = TokenReviewer::new(&client, store.clone(), &namespace, &agents);
            Ok(Opened {
                source: Source::Kubernetes(Box::new(cluster)),
                authority: key.authority(authority).await?,
                authenticator: Arc::new(reviewer),
                cluster: Some(InCluster {
                    client,
                    namespace,
                    key,
                    waypoints,
                }),
            })
        }
    }
}
