//! What a change of the store means for what is open already.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::broadcast::error::RecvError;

use super::Proxy;
use crate::{discovery::store::Snapshot, identity::Identity};

/// Applies every update until the proxy drains.
pub(super) async fn follow(proxy: &Arc<Proxy>) {
    let mut updates = proxy.store.subscribe();
    apply(proxy, proxy.store.snapshot(), true).await;
    loop {
        let update = tokio::select! {
            () = proxy.drain.cancelled() => return,
            update = updates.recv() => update,
        };
        match update {
            Ok(update) => {
                apply(proxy, update.snapshot.clone(), !update.workloads.is_empty()).await;
            }
            Err(RecvError::Lagged(_)) => apply(proxy, proxy.store.snapshot(), true).await,
            Err(RecvError::Closed) => return,
        }
    }
}

async fn apply(proxy: &Arc<Proxy>, snapshot: Arc<Snapshot>, workloads_changed: bool) {
    if workloads_changed {
        identities(proxy, &snapshot);
        // A tunnel is for one life of one pod: whoever gets its address is another.
        proxy
            .pool
            .close_matching(|key| snapshot.workload(&key.uid).is_none());
    }
    let connections = proxy.connections.clone();
    let closed = tokio::task::spawn_blocking(move || connections.reevaluate(&snapshot))
        .await
        .unwrap_or(0);
    if closed > 0 {
        tracing::info!(closed, "connections ended by a change");
    }
}

/// Certificates follow the identities of this node's enrolled pods.
fn identities(proxy: &Proxy, snapshot: &Snapshot) {
    let local: HashSet<Identity> = snapshot
        .local_workloads(&proxy.node)
        .filter(|workload| workload.is_enrolled())
        .map(|workload| workload.identity.clone())
        .collect();
    proxy
        .certificates
        .retain(|identity| local.contains(identity));
    proxy
        .pool
        .close_matching(|key| !local.contains(&key.source));
    for identity in &local {
        if let Err(error) = proxy.certificates.prefetch(identity) {
            tracing::error!("{error}");
        }
    }
    proxy.server_certificates.set_local(local);
}
