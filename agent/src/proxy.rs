//! The data path: captured connections in, connections to pods and other agents out.
//!
//! `outbound` carries what pods open, `inbound` what other agents bring in tunnels,
//! `plaintext` what reaches pods from outside the mesh. [`route`] decides where to, the policy
//! module whether; `dial` and [`copy`] do it; `follow` applies what changes meanwhile.

mod admission;
pub mod connections;
mod connector;
pub mod copy;
mod core;
mod counts;
pub(crate) mod dial;
pub(crate) mod error;
mod follow;
mod inbound;
pub mod listener;
mod load;
mod memory;
mod outbound;
mod pacing;
mod passed;
mod plaintext;
pub mod plaintext_clients;
mod probe;
pub mod route;
pub(crate) mod tunnel_io;
pub(crate) mod tunnel_server;
pub(crate) mod tunnels;

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use ambit_common::capture::Listener;
use tokio::{net::TcpListener, sync::Notify, time};
use tokio_util::sync::CancellationToken;

pub use self::{
    core::{Core, CoreParts},
    tunnels::TunnelStream,
};
use self::{plaintext_clients::PlaintextClients, route::MissingWaypoint};
use crate::{
    capture::{
        BoundPods,
        passed::{Events, Passes},
    },
    discovery::{model::Workload, store::Snapshot},
    hbone::Baggage,
    policy::{self, Connection},
};

/// What the agent of a node needs.
pub struct Proxy {
    core: Core,
    bound: BoundPods,
    node: Arc<str>,
    passes: Passes,
    /// What the kernel was told it may let pass must be asked for again.
    renewed: Notify,
    missing: MissingWaypoint,
    plaintext_clients: PlaintextClients,
    /// Cancelled when another agent leads the node: the kernel is told nothing any more.
    retired: CancellationToken,
}

/// What a proxy is made of.
pub struct Parts {
    /// What it has in common with waypoints.
    pub core: CoreParts,
    /// Which pods' interfaces are known.
    pub bound: BoundPods,
    /// This node's name.
    pub node: Arc<str>,
    /// Connections that pass from pod to pod.
    pub passes: Passes,
    /// What becomes of connections whose waypoint isn't ready.
    pub missing: MissingWaypoint,
}

impl Deref for Proxy {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Proxy {
    /// Puts a proxy together; it serves nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            core: Core::new(parts.core),
            bound: parts.bound,
            node: parts.node,
            passes: parts.passes,
            renewed: Notify::new(),
            missing: parts.missing,
            plaintext_clients: PlaintextClients::default(),
            retired: CancellationToken::new(),
        })
    }

    /// Serves a role's listener until the proxy drains.
    pub async fn serve(self: Arc<Self>, role: Listener, listener: TcpListener) {
        let proxy = || self.clone();
        match role {
            Listener::Outbound => {
                let serve = |client| outbound::serve(proxy(), client);
                self.accept(listener, serve).await;
            }
            Listener::Plaintext => {
                let serve = |client| plaintext::serve(proxy(), client);
                self.accept(listener, serve).await;
            }
            Listener::Tunnel => {
                let serve = |tunnel| inbound::serve(proxy(), tunnel);
                self.accept(listener, serve).await;
            }
        }
    }

    /// Who speaks plaintext to pods of this node.
    #[must_use]
    pub fn plaintext_clients(&self) -> &PlaintextClients {
        &self.plaintext_clients
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
        self.closed.cancel();
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

    /// As [`Core::drain`]; the kernel is left to another agent.
    pub async fn drain(&self, limit: Duration) {
        self.stop_accepting();
        self.core.drain(limit).await;
    }

    /// The id of the pod's network namespace, if the pod's sockets may become members of the splice.
    fn splice_namespace(&self, pod: &Workload) -> Option<i32> {
        let namespace = self.bound.namespace(&pod.uid);
        namespace.filter(|_| !pod.exclusions.no_splice)
    }

    /// The enrolled pod of this node that has an address.
    fn local_workload(&self, snapshot: &Snapshot, address: IpAddr) -> Option<Arc<Workload>> {
        self.local_client(snapshot, address)
            .filter(|workload| workload.is_enrolled())
    }

    /// The pod of this node that has an address, and whose connections come here.
    fn local_client(&self, snapshot: &Snapshot, address: IpAddr) -> Option<Arc<Workload>> {
        snapshot
            .workload_by_address(address)
            .filter(|workload| *workload.node == *self.node && workload.is_client_here())
            .cloned()
    }
}

/// What the mesh calls a workload in the `baggage` header.
pub(crate) fn baggage(workload: &Workload, cluster: &Arc<str>) -> Baggage {
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
pub(crate) fn log_dry_run(snapshot: &Snapshot, connection: &Connection<'_>) {
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
