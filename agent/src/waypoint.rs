//! A waypoint: takes HBONE from agents, decides who may go on, and goes on in its own name.
//!
//! Bytes are passed on as they are; what is in them is nobody's business here yet.

mod stream;
pub mod supervisor;
mod target;

use std::sync::Arc;

use tokio::{net::TcpListener, sync::broadcast::error::RecvError};

use crate::{
    discovery::{model::ObjectName, store::Snapshot},
    identity::Identity,
    proxy::{Core, CoreParts, connections::Concern, tunnel_server},
};

/// What a waypoint is made of.
pub struct Parts {
    /// What it has in common with agents.
    pub core: CoreParts,
    /// The Gateway that it is.
    pub gateway: ObjectName,
    /// Who it is.
    pub identity: Identity,
}

/// A waypoint that is being served.
pub struct Waypoint {
    core: Core,
    gateway: ObjectName,
    identity: Identity,
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
        })
    }

    /// What it has in common with agents.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
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
        loop {
            let (snapshot, concern) = tokio::select! {
                update = updates.recv() => match update {
                    Ok(update) => (update.snapshot.clone(), Concern::of(&update)),
                    Err(RecvError::Lagged(_)) => {
                        (self.core.store.snapshot(), Some(Concern::Everything))
                    }
                    Err(RecvError::Closed) => return,
                },
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

    async fn apply(&self, snapshot: Arc<Snapshot>, concern: Concern) {
        let (connections, latest) = (self.core.connections.clone(), snapshot.clone());
        let decide = move || connections.reevaluate(&latest, &concern);
        let closed = tokio::task::spawn_blocking(decide).await.unwrap_or(0);
        if closed > 0 {
            tracing::info!(closed, "connections ended by a change");
        }
        let is_gone = |key: &crate::hbone::pool::PoolKey| !snapshot.is_alive(&key.uid);
        self.core.tunnels.close_matching(is_gone);
    }
}
