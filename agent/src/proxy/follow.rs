//! What a change of the store means for what is open already.

use std::{collections::HashSet, sync::Arc};

use futures::future::join_all;
use tokio::sync::broadcast::error::RecvError;

use super::{Proxy, connections::Concern};
use crate::{
    discovery::{
        model::Workload,
        store::{Snapshot, Update},
    },
    identity::Identity,
};

/// Applies every update, for as long as the store is there: connections that go on while the agent
/// drains are revoked as any others are.
pub(super) async fn follow(proxy: &Arc<Proxy>) {
    let mut updates = proxy.store.subscribe();
    let mut renewals = proxy.certificates.renewals();
    apply(proxy, proxy.store.snapshot(), Concern::Everything).await;
    loop {
        let update = tokio::select! {
            update = updates.recv() => update,
            renewed = renewals.recv() => {
                proxy.replace_tunnels(renewed.ok().as_ref());
                continue;
            }
        };
        match update {
            Ok(update) => {
                if decides_otherwise(&update, &proxy.node) {
                    renew(proxy);
                }
                if let Some(concern) = Concern::of(&update) {
                    apply(proxy, update.snapshot.clone(), concern).await;
                }
            }
            Err(RecvError::Lagged(_)) => {
                renew(proxy);
                apply(proxy, proxy.store.snapshot(), Concern::Everything).await
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whether a connection between pods of this node may be decided in another way than before.
fn decides_otherwise(update: &Update, node: &str) -> bool {
    let is_here = |workload: &Arc<Workload>| *workload.node == *node;
    let workloads = update.workloads.iter();
    let mut ends = workloads.flat_map(|change| change.before.iter().chain(&change.after));
    update.policies_changed || update.waypoints_changed || ends.any(is_here)
}

/// Has the kernel ask for everything that it was told it may let pass.
pub(super) fn renew(proxy: &Proxy) {
    if proxy.retired.is_cancelled() {
        // The next agent may be there, and does it.
        return;
    }
    if let Err(error) = proxy.passes.renew() {
        tracing::error!("the kernel may let pass what is allowed no longer: {error}");
    }
    proxy.renewed.notify_one();
}

async fn apply(proxy: &Arc<Proxy>, snapshot: Arc<Snapshot>, concern: Concern) {
    let local = concern
        .is_about_workloads()
        .then(|| identities(proxy, &snapshot));
    // Connections before the tunnels that carry them, so that each ends for its own reason.
    let (connections, latest) = (proxy.connections.clone(), snapshot.clone());
    let closed = tokio::task::spawn_blocking(move || connections.reevaluate(&latest, &concern))
        .await
        .unwrap_or(0);
    if closed > 0 {
        tracing::info!(closed, "connections ended by a change");
    }
    if let Some(local) = local {
        // A tunnel is for one life of one pod: whoever gets its address is another.
        proxy
            .tunnels
            .close_matching(|key| !snapshot.is_alive(&key.uid) || !local.contains(&key.source));
    }
}

/// Waits until every identity of this node has its certificate, or can't have one now.
pub(super) async fn certificates(proxy: &Proxy) {
    let local = local(proxy, &proxy.store.snapshot());
    let all = local
        .iter()
        .map(|identity| proxy.certificates.certificate(identity));
    // Why one can't be had is logged where it is fetched.
    join_all(all).await;
}

fn local(proxy: &Proxy, snapshot: &Snapshot) -> HashSet<Identity> {
    snapshot
        .local_workloads(&proxy.node)
        .filter(|workload| workload.is_enrolled())
        .map(|workload| workload.identity.clone())
        .collect()
}

/// Certificates follow the identities of this node's enrolled pods, which are returned.
fn identities(proxy: &Proxy, snapshot: &Snapshot) -> HashSet<Identity> {
    let local = local(proxy, snapshot);
    proxy
        .certificates
        .retain(|identity| local.contains(identity));
    for identity in &local {
        if let Err(error) = proxy.certificates.prefetch(identity) {
            tracing::error!("{error}");
        }
    }
    proxy.server_certificates.set_local(local.iter().cloned());
    local
}
