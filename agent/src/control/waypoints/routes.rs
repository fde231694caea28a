//! Routes: each has its status say, for each Service that it is for, whether it is applied and whether what it
//! refers to is there.

mod status;

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{DynamicObject, PostParams, TypeMeta},
    runtime::{
        Controller,
        controller::{self, Action},
        watcher,
    },
};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use self::status::parents;
use super::{
    Context,
    follow::{await_kinds, drive, retry},
    kinds::{API_VERSION, kind, place},
};
use crate::discovery::store::{Store, Update};

/// How long events are gathered.
const GATHER: Duration = Duration::from_millis(50);

/// One kind of route, and who asks for it.
struct Followed {
    context: Arc<Context>,
    kind: &'static str,
    plural: &'static str,
}

/// Keeps the status of all routes of a kind until told to stop.
pub(super) async fn run(
    context: &Arc<Context>,
    kind_: &'static str,
    plural: &'static str,
    stop: &CancellationToken,
) {
    let kinds = [kind_];
    let there = await_kinds(&context.client, &kinds, "status of routes");
    if stop.run_until_cancelled(there).await.is_none() {
        return;
    }
    let resource = kind(kind_, plural);
    let all = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
    let followed = Arc::new(Followed {
        context: Arc::clone(context),
        kind: kind_,
        plural,
    });
    let controller = Controller::new_with(all, watcher::Config::default(), resource)
        .with_config(controller::Config::default().debounce(GATHER))
        .reconcile_all_on(changes(&context.store))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, followed);
    drive(plural, controller).await;
}

/// Whenever something else than a route may have changed what is to be said of it.
fn changes(store: &Store) -> impl Stream<Item = ()> + use<> {
    let matters = |update: &Update| {
        update.routes_changed || update.services.iter().any(|it| it.concerns_routes())
    };
    stream::unfold(store.subscribe(), move |mut updates| async move {
        loop {
            match updates.recv().await {
                Ok(update) if !matters(&update) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return Some(((), updates)),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Writes the status, if it isn't what it was.
async fn reconcile(
    route: Arc<DynamicObject>,
    followed: Arc<Followed>,
) -> Result<Action, kube::Error> {
    let Followed {
        context,
        kind: name,
        plural,
    } = &*followed;
    let mut object = DynamicObject::clone(&route);
    object.types = Some(TypeMeta {
        api_version: API_VERSION.into(),
        kind: (*name).into(),
    });
    let snapshot = context.store.snapshot();
    let wanted = parents(&object, &snapshot, &Time(Timestamp::now()));
    let has = object.data["status"]["parents"].as_array();
    if has.map_or(&[][..], Vec::as_slice) == wanted {
        return Ok(Action::await_change());
    }
    if object.data["status"].is_object() {
        object.data["status"]["parents"] = json!(wanted);
    } else {
        object.data["status"] = json!({ "parents": wanted });
    }
    // With the version that was read: whoever else writes into the list isn't overwritten.
    let (namespace, called) = place(&object.metadata);
    let resource = kind(name, plural);
    let told = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &resource)
        .replace_status(called, &PostParams::default(), &object)
        .await;
    match told {
        // It has gone meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        told => drop(told?),
    }
    Ok(Action::await_change())
}
