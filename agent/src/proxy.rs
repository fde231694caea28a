//! The data path: captured connections in, connections to pods and other agents out.
//!
//! `outbound` carries what pods open, `inbound` what other agents bring in tunnels,
//! `plaintext` what reaches pods from outside the mesh. [`route`] decides where to, the policy
//! module whether; `dial` and [`copy`] do it; `follow` applies what changes meanwhile.

mod admission;
pub mod connections;
mod connector;
pub mod copy;
mod counts;
mod dial;
mod error;
mod follow;
mod inbound;
pub mod listener;
mod load;
mod outbound;
mod pacing;
mod passed;
mod plaintext;
pub mod route;
mod tunnels;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ambit_common::capture::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connector::TunnelConnector;
pub use self::tunnels::TunnelStream;
use self::{
    admission::Admission,
    connections::{CloseReason, Connections},
    load::Load,
    tunnels::Tunnels,
};
use crate::{
    capture::{
        BoundPods,
        passed::{Events, Passes},
    },
    discovery::{
        model::Workload,
        store::{Snapshot, Store},
    },
    hbone::{self, Baggage},
    identity::{Certificates, tls::ServerCertificates},
    policy::{self, Connection},
    telemetry::Metrics,
};

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long connections that are cut off at the end of a drain have to say so to their ends.
const CUT_OFF: Duration = Duration::from_secs(1);

/// What every connection needs.
pub struct Proxy {
    bound: BoundPods,
    node: Arc<str>,
    cluster: Arc<str>,
    cluster_domain: Arc<str>,
    store: Arc<Store>,
    certificates: Certificates,
    server_certificates: ServerCertificates,
    tunnels: Tunnels,
    connections: Arc<Connections>,
    load: Load,
    admission: Admission,
    metrics: Arc<Metrics>,
    passes: Passes,
    /// What the kernel was told it may let pass must be asked for again.
    renewed: Notify,
    tunnel_settings: hbone::Settings,
    /// Cancelled when another agent leads the node: the kernel is told nothing any more.
    retired: CancellationToken,
    /// Cancelled when the agent drains: tunnels say GOAWAY, listeners close.
    drain: CancellationToken,
    /// Every connection and tunnel that is being served.
    tasks: TaskTracker,
}

/// What a proxy is made of.
pub struct Parts {
    /// Which pods' interfaces are known.
    pub bound: BoundPods,
    /// This node's name.
    pub node: Arc<str>,
    /// The cluster's name, for telemetry.
    pub cluster: Arc<str>,
    /// The end of services' DNS names.
    pub cluster_domain: Arc<str>,
    /// What is known.
    pub store: Arc<Store>,
    /// Certificates of local workloads.
    pub certificates: Certificates,
    /// The open set.
    pub connections: Arc<Connections>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Connections that pass from pod to pod.
    pub passes: Passes,
}

impl Proxy {
    /// Puts a proxy together; it serves nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let connector = TunnelConnector::new(parts.certificates.clone());
        Arc::new(Self {
            bound: parts.bound,
            node: parts.node,
            cluster: parts.cluster,
            cluster_domain: parts.cluster_domain,
            store: parts.store,
            server_certificates: ServerCertificates::new(parts.certificates.clone()),
            certificates: parts.certificates,
            tunnels: Tunnels::new(connector),
            connections: parts.connections,
            load: Load::default(),
            admission: Admission::default(),
            metrics: parts.metrics,
            passes: parts.passes,
            renewed: Notify::new(),
            tunnel_settings: hbone::Settings::default(),
            drain: CancellationToken::new(),
            retired: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Serves a role's listener until the proxy drains.
    pub async fn serve(self: Arc<Self>, role: Listener, listener: TcpListener) {
        match role {
            Listener::Outbound => self.accept(listener, outbound::serve).await,
            Listener::Plaintext => self.accept(listener, plaintext::serve).await,
            Listener::Tunnel => self.accept(listener, inbound::serve).await,
        }
    }

    /// Keeps certificates, tunnels and open connections in line with the store, also while
    /// the proxy drains. Never returns: the caller ends it.
    pub async fn follow(self: Arc<Self>) {
        follow::follow(&self).await;
    }

    /// Follows connections that pass from pod to pod, until the proxy is retired.
    pub async fn follow_passed(self: Arc<Self>, events: Events) {
        if let Err(error) = passed::follow(self, events).await {
            tracing::error!(
                "connections that pass from pod to pod are no longer followed: {error}"
            );
        }
    }

    /// Leaves the kernel to another agent; connections are taken and carried as before.
    pub fn retire(&self) {
        self.retired.cancel();
    }

    /// Has [`Self::serve`] end, and tunnels say that they do.
    pub fn stop_accepting(&self) {
        self.retire();
        self.drain.cancel();
    }

    /// Gets the certificates of this node's pods, as far as that takes no longer than `limit`.
    pub async fn warm_up(&self, limit: Duration) {
        if time::timeout(limit, follow::certificates(self))
            .await
            .is_err()
        {
            tracing::warn!("some certificates aren't there yet: connections of theirs may wait");
        }
    }

    /// Takes no more connections, tells other agents so, and waits for those that are open, for at
    /// most `limit`; then they are cut off.
    pub async fn drain(&self, limit: Duration) {
        self.stop_accepting();
        self.tasks.close();
        let all = async {
            self.tunnels.drain().await;
            self.tasks.wait().await;
        };
        if time::timeout(limit, all).await.is_ok() {
            return;
        }
        let connections = self.connections.close_all(&CloseReason::Drained);
        self.tunnels.close_matching(|_| true);
        let seconds = limit.as_secs();
        tracing::warn!(connections, "cut off after draining for {seconds}s");
        // Both ends of each are to see a reset, and its report is to be written.
        let cut_off = async {
            self.tunnels.drain().await;
            self.tasks.wait().await;
        };
        if time::timeout(CUT_OFF, cut_off).await.is_err() {
            let connections = self.connections.len();
            tracing::warn!(
                connections,
                "some tunnels or connections didn't end when cut off"
            );
        }
    }

    /// Tunnels that this agent has open to others.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    async fn accept<F>(
        self: Arc<Self>,
        listener: TcpListener,
        serve: impl Fn(Arc<Self>, TcpStream) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Only fails on a connection that is gone already, which reading will tell.
                    let _ = stream.set_nodelay(true);
                    self.tasks.spawn(serve(self.clone(), stream));
                }
                Err(error) => {
                    tracing::warn!("accepting a connection: {error}");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The id of the pod's network namespace, if the pod's sockets may become members of the splice.
    fn splice_namespace(&self, pod: &Workload) -> Option<i32> {
        let namespace = self.bound.namespace(&pod.uid);
        namespace.filter(|_| !pod.exclusions.no_splice)
    }

    /// The enrolled pod of this node that has an address.
    fn local_workload(&self, snapshot: &Snapshot, address: IpAddr) -> Option<Arc<Workload>> {
        snapshot
            .workload_by_address(address)
            .filter(|workload| *workload.node == *self.node && workload.is_enrolled())
            .cloned()
    }
}

/// What the mesh calls a workload in the `baggage` header.
fn baggage(workload: &Workload, cluster: &Arc<str>) -> Baggage {
    let names = &workload.telemetry;
    Baggage {
        cluster: Some(cluster.clone()),
        namespace: Some(workload.name.namespace.clone()),
        workload_type: Some(names.workload_type.clone()),
        workload: Some(names.workload.clone()),
        service: Some(names.canonical_service.clone()),
        revision: Some(names.canonical_revision.clone()),
        ..Baggage::default()
    }
}

/// Says what policies in dry run would have decided.
fn log_dry_run(snapshot: &Snapshot, connection: &Connection<'_>) {
    if let Some(decision) = policy::dry_run(snapshot.policies(), connection) {
        tracing::info!(
            source = %connection.source_address,
            destination = %connection.destination.name,
            port = connection.destination_address.port(),
            "{decision}"
        );
    }
}

/// IPv4-mapped addresses as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
