//! A waypoint: takes HBONE from agents, decides who may go on, and goes on in its own name.
//!
//! HTTP is served request by request (`http`), anything else passed on as it is (`tcp`).

pub mod authentication;
pub(crate) mod detect;
pub mod filters;
mod http;
pub mod jwks;
mod onward;
pub mod resilience;
mod stream;
pub mod supervisor;
mod target;
mod tcp;

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    net::TcpListener,
    sync::broadcast::error::RecvError,
    time::{self, Instant},
};

use self::{
    authentication::Authenticator,
    http::{under_way::UnderWay, upstream::Upstreams},
    resilience::Resilience,
    target::Target,
};
use crate::{
    discovery::{model::ObjectName, store::Snapshot},
    identity::Identity,
    proxy::{Core, CoreParts, connections::Concern, tunnel_server},
    telemetry::{ResilienceMetrics, trace::Tracer},
};

/// How often connections are looked for that nobody needs any more.
const SWEEP: Duration = Duration::from_secs(10);

/// What a waypoint is made of.
pub struct Parts {
    /// What it has in common with agents.
    pub core: CoreParts,
    /// The Gateway that it is.
    pub gateway: ObjectName,
    /// Who it is.
    pub identity: Identity,
    /// The node that it runs on.
    pub node: Arc<str>,
    /// The address of its pod, if it has one of its own.
    pub pod_address: Option<IpAddr>,
    /// Who records the spans of requests.
    pub tracer: Tracer,
    /// Where balancing and its limits are counted.
    pub resilience: Arc<ResilienceMetrics>,
}

/// A waypoint that is being served.
pub struct Waypoint {
    core: Core,
    gateway: ObjectName,
    identity: Identity,
    node: Arc<str>,
    pod_address: Option<IpAddr>,
    tracer: Tracer,
    upstreams: Upstreams,
    under_way: Arc<UnderWay>,
    resilience: Resilience,
    authenticator: Authenticator,
}

impl Waypoint {
    /// Puts a waypoint together; it serves nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let core = Core::new(parts.core);
        core.server_certificates.set_local([parts.identity.clone()]);
        Arc::new(Self {
            core,
            gateway: parts.gateway,
            identity: parts.identity,
            node: parts.node,
            pod_address: parts.pod_address,
            tracer: parts.tracer,
            upstreams: Upstreams::default(),
            under_way: Arc::default(),
            resilience: Resilience::new(parts.resilience),
            authenticator: Authenticator::default(),
        })
    }

    /// What it has in common with agents.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The way to an address. Pods of its own node are reached as from any pod of the mesh, by interface and verdict, if
    /// the agent there takes this one's connections: so it does if it knows the pod for a waypoint's.
    fn way_to(&self, snapshot: &Snapshot, address: SocketAddr) -> Target {
        let own = self
            .pod_address
            .and_then(|own| snapshot.workload_by_address(own));
        let is_known = own.is_some_and(|own| own.is_client_here() && own.identity == self.identity);
        let here = if is_known { &*self.node } else { "" };
        Target::at(snapshot, here, address)
    }

    /// How services and their endpoints do.
    #[must_use]
    pub fn resilience(&self) -> &Resilience {
        &self.resilience
    }

    /// Begins the spans of requests.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Serves a listener until the waypoint drains.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let serve = |tunnel| {
            let waypoint = self.clone();
            async move {
                let own = waypoint.identity.clone();
                let handler = |ends, request| stream::serve(waypoint.clone(), ends, request);
                // Whatever name the client knows: it checks whom it has found.
                tunnel_server::serve(&waypoint.core, tunnel, |_| Some(own), handler).await;
            }
        };
        self.core.accept(listener, serve).await;
    }

    /// Keeps tunnels and open connections in line with the store, also while the waypoint drains.
    /// Never returns: the caller ends it.
    pub async fn follow(self: Arc<Self>) {
        let mut updates = self.core.store.subscribe();
        let mut renewals = self.core.certificates.renewals();
        self.prepare(&self.core.store.snapshot());
        let mut sweep = time::interval(SWEEP);
        let closed = self.core.closed.cancelled();
        let mut closed = pin!(closed.fuse());
        loop {
            let (snapshot, concern) = tokio::select! {
                update = updates.recv() => match update {
                    Ok(update) => {
                        self.resilience.apply(&update, std::time::Instant::now());
                        (update.snapshot.clone(), Concern::of(&update))
                    }
                    Err(RecvError::Lagged(_)) => {
                        let snapshot = self.core.store.snapshot();
                        self.resilience.resync(&snapshot, std::time::Instant::now());
                        (snapshot, Some(Concern::Everything))
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = sweep.tick() => {
                    self.upstreams.sweep(Instant::now());
                    continue;
                }
                () = &mut closed => {
                    self.upstreams.drain();
                    continue;
                }
                renewed = renewals.recv() => {
                    self.core.replace_tunnels(renewed.ok().as_ref());
                    continue;
                }
            };
            if let Some(concern) = concern {
                self.apply(snapshot, concern).await;
            }
        }
    }

    /// Fetches the keys of issuers before their first token comes.
    fn prepare(&self, snapshot: &Snapshot) {
        let policies = snapshot.policies().request_authentications();
        self.authenticator.prepare(policies);
    }

    async fn apply(&self, snapshot: Arc<Snapshot>, concern: Concern) {
        self.prepare(&snapshot);
        let (connections, latest) = (self.core.connections.clone(), snapshot.clone());
        let requests = self.under_way.clone();
        let decide = move || {
            let closed = connections.reevaluate(&latest, &concern);
            (closed, requests.reevaluate(&latest, &concern))
        };
        let (closed, ended) = tokio::task::spawn_blocking(decide)
            .await
            .unwrap_or_default();
        if closed > 0 {
            tracing::info!(closed, "connections ended by a change");
        }
        if ended > 0 {
            tracing::info!(ended, "requests ended by a change");
        }
        let is_gone = |key: &crate::hbone::pool::PoolKey| !snapshot.is_alive(&key.uid);
        self.core.tunnels.close_matching(is_gone);
        self.upstreams.forget(|uid| !snapshot.is_alive(uid));
    }
}
