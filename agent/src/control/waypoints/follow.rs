//! What the controllers have in common: they wait for kinds, log, and try again.

use std::{fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Client,
    core::DynamicObject,
    runtime::{
        controller::{Action, Error},
        reflector::ObjectRef,
        watcher,
    },
};
use tokio::time;

use super::kinds::API_VERSION;

/// How long until what failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// The same for what somebody else has changed in the meantime.
const RETRY_CONFLICT: Duration = Duration::from_millis(300);
/// How often the Gateway API's kinds are looked for.
const LOOK: Duration = Duration::from_secs(3);

/// Waits until the API server has kinds of the Gateway API, and says once if it hasn't, and what there isn't for
/// that.
pub(super) async fn await_kinds(client: &Client, kinds: &[&str], what: &str) {
    let mut told = String::new();
    loop {
        let missing = match client.list_api_group_resources(API_VERSION).await {
            Ok(list) => {
                let is_there = |kind: &str| list.resources.iter().any(|it| it.kind == kind);
                match kinds.iter().find(|kind| !is_there(kind)) {
                    None => return,
                    Some(kind) => format!("the cluster has no kind {kind}"),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                format!("the cluster has no {API_VERSION}")
            }
            Err(error) => format!("asking for {API_VERSION}: {error}"),
        };
        if missing != told {
            tracing::info!(
                "no {what} yet: {missing}; that changes as soon as the Gateway API's CRDs are installed"
            );
            told = missing;
        }
        time::sleep(LOOK).await;
    }
}

/// Drives a controller until it ends, and logs what goes wrong: once for what is wrong for long.
pub(super) async fn drive<K>(
    what: &str,
    done: impl Stream<Item = Result<(ObjectRef<K>, Action), Error<kube::Error, watcher::Error>>>,
) where
    K: kube::Resource,
    K::DynamicType: Debug + Hash + Eq,
{
    let mut told = String::new();
    let mut done = std::pin::pin!(done);
    while let Some(result) = done.next().await {
        let failure = match result {
            // It has gone meanwhile, or was changed by somebody else.
            Ok(_) | Err(Error::ObjectNotFound(_)) => continue,
            Err(Error::ReconcilerFailed(error, _)) if is_conflict(&error) => continue,
            Err(Error::ReconcilerFailed(kube::Error::Api(status), object)) => {
                format!("{}: {}", called(&object), status.message)
            }
            Err(Error::ReconcilerFailed(error, object)) => format!("{}: {error}", called(&object)),
            Err(error) => error.to_string(),
        };
        if failure != told {
            tracing::warn!("{what}: {failure}; tried again");
            told = failure;
        }
    }
}

fn called(object: &ObjectRef<DynamicObject>) -> String {
    match &object.namespace {
        Some(namespace) => format!("{namespace}/{}", object.name),
        None => object.name.clone(),
    }
}

/// What failed is tried again after a while; at once if somebody else was only faster.
pub(super) fn retry<K, C>(_: Arc<K>, error: &kube::Error, _: Arc<C>) -> Action {
    Action::requeue(match is_conflict(error) {
        true => RETRY_CONFLICT,
        false => RETRY,
    })
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}
