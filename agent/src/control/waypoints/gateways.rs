//! Gateways: each is judged, its objects are applied, and its status says how it fares.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::DynamicObject,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Context, MANAGER,
    accept::{Judgement, judge},
    follow::{drive, retry},
    kinds::{API_VERSION, CLASS, Gateway, gateways, is_waypoint, place},
    namespaces,
    objects::{BUNDLE_FILE, Common, DEPLOYMENT, SERVICE, Wanted, objects, resource, trust_bundle},
    progress::{Whose, of_objects, refused, taken, whose},
    status::{Progress, status},
};
use crate::discovery::model::GATEWAY_CLASS_NAME;

/// Where control publishes what is to be trusted.
const TRUST_BUNDLE: &str = "ambit-trust-bundle";
/// How long events of one Gateway are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// How often is looked again at what no event tells of.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Makes waypoints of Gateways until told to stop.
pub(super) async fn run(context: &Arc<Context>, stop: &CancellationToken) {
    let client = || context.client.clone();
    let config = watcher::Config::default;
    let all = Api::<Gateway>::all_with(client(), &gateways());
    let ours = || config().labels(&format!("{GATEWAY_CLASS_NAME}={CLASS}"));
    let bundle = config().fields(&format!("metadata.name={TRUST_BUNDLE}"));
    let own = Api::<ConfigMap>::namespaced(client(), &context.settings.namespace);
    let controller = Controller::new_with(all, config(), gateways());
    let (known, also_known) = (controller.store(), controller.store());
    let controller = controller
        .with_config(controller::Config::default().debounce(GATHER))
        .owns(Api::<Deployment>::all(client()), ours())
        .owns(Api::<Service>::all(client()), ours())
        .owns(Api::<ServiceAccount>::all(client()), ours())
        .owns(Api::<PodDisruptionBudget>::all(client()), ours())
        .owns(Api::<ConfigMap>::all(client()), ours())
        .watches(own, bundle, move |_| those(&known, |_| true))
        .watches(
            Api::<Namespace>::all(client()),
            config(),
            move |namespace| {
                those(&also_known, |gateway| {
                    namespaces::is_made(gateway)
                        && gateway.metadata.namespace == namespace.metadata.name
                })
            },
        )
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, context.clone());
    drive("Gateways", controller).await;
}

/// The waypoints' Gateways for which something holds.
fn those(known: &Store<Gateway>, holds: impl Fn(&Gateway) -> bool) -> Vec<ObjectRef<Gateway>> {
    let all = known.state().into_iter();
    all.filter(|gateway| is_waypoint(gateway) && holds(gateway))
        .map(|gateway| ObjectRef::from_obj_with(&*gateway, gateways()))
        .collect()
}

async fn reconcile(gateway: Arc<Gateway>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let ends = gateway.metadata.deletion_timestamp.is_some();
    if !is_waypoint(&gateway) || ends || namespaces::remove_unwanted(&gateway, &context).await? {
        return Ok(Action::await_change());
    }
    let judgement = judge(&gateway);
    let applied = if judgement.accepted.holds {
        apply(&gateway, &judgement, &context).await
    } else {
        // What runs of it goes on, with the roots that are trusted now.
        keep(&gateway, &context)
            .await
            .map(|()| Progress::NotAccepted)
    };
    let (progress, failure) = match applied {
        Ok(progress) => (progress, None),
        Err(error) => match refused(&error) {
            Some(progress) => (progress, Some(error)),
            None => return Err(error),
        },
    };
    tell(&gateway, &judgement, &progress, &context).await?;
    match (failure, progress) {
        (Some(error), _) => Err(error),
        // No event tells of what belongs to others.
        (None, Progress::Taken(_) | Progress::Pending(_)) => Ok(Action::requeue(LOOK_AGAIN)),
        (None, _) => Ok(Action::await_change()),
    }
}

/// Has the objects of an accepted Gateway be as they should.
async fn apply(
    gateway: &Gateway,
    judgement: &Judgement,
    context: &Context,
) -> Result<Progress, kube::Error> {
    let Some(image) = &context.image else {
        let why = "control doesn't know which image to run: set its --waypoint-image or POD_NAME";
        return Ok(Progress::Pending(why.into()));
    };
    let Some(trust_bundle) = published(context).await? else {
        return Ok(Progress::Pending(format!(
            "ConfigMap {TRUST_BUNDLE} isn't there yet"
        )));
    };
    let common = Common {
        image: image.clone(),
        ca_address: context.settings.ca_address.clone(),
        trust_domain: context.settings.trust_domain.clone(),
        arguments: context.settings.arguments.clone(),
        trust_bundle,
    };
    let mut live = BTreeMap::new();
    for wanted in objects(gateway, &common, None) {
        let Some(object) = api(context, gateway, &wanted)
            .get_opt(wanted.name())
            .await?
        else {
            continue;
        };
        match whose(gateway, &object) {
            Whose::Ours => live.insert(wanted.resource.kind, object),
            other => return Ok(taken(gateway, &wanted.resource.kind, wanted.name(), other)),
        };
    }
    // What somebody, or something, has scaled it to since.
    let scaled = live
        .get("Deployment")
        .and_then(|it| it.data["spec"]["replicas"].as_i64());
    let replicas = judgement.replicas.map(i64::from).or(scaled);
    let mut applied = BTreeMap::new();
    for wanted in objects(gateway, &common, replicas) {
        let before = live.get(&wanted.resource.kind);
        let object = apply_one(gateway, &wanted, before, context).await?;
        applied.insert(wanted.resource.kind, object);
    }
    let of = |kind| applied.get(resource(kind).kind.as_str());
    Ok(match (of(&SERVICE), of(&DEPLOYMENT)) {
        (Some(service), Some(deployment)) => of_objects(gateway, service, deployment),
        _ => Progress::NoAddress,
    })
}

/// Keeps the trust bundle of a waypoint that was made when its Gateway was still good.
async fn keep(gateway: &Gateway, context: &Context) -> Result<(), kube::Error> {
    let Some(bundle) = published(context).await? else {
        return Ok(());
    };
    let wanted = trust_bundle(gateway, &bundle);
    let live = api(context, gateway, &wanted)
        .get_opt(wanted.name())
        .await?;
    let live = live.filter(|live| whose(gateway, live) == Whose::Ours);
    if live.is_some() {
        apply_one(gateway, &wanted, live.as_ref(), context).await?;
    }
    Ok(())
}

/// Applies one object over the version of it that is known, or makes it.
async fn apply_one(
    gateway: &Gateway,
    wanted: &Wanted,
    before: Option<&DynamicObject>,
    context: &Context,
) -> Result<DynamicObject, kube::Error> {
    let mut by = PatchParams::apply(MANAGER);
    let mut object = wanted.object.clone();
    // Whoever makes or changes one of that name in the meantime isn't overwritten.
    if let Some(before) = before {
        by = by.force();
        object["metadata"]["uid"] = json!(before.metadata.uid);
        object["metadata"]["resourceVersion"] = json!(before.metadata.resource_version);
    }
    api(context, gateway, wanted)
        .patch(wanted.name(), &by, &Patch::Apply(&object))
        .await
}

/// The trust bundle that control publishes.
async fn published(context: &Context) -> Result<Option<String>, kube::Error> {
    let maps = Api::<ConfigMap>::namespaced(context.client.clone(), &context.settings.namespace);
    let map = maps.get_opt(TRUST_BUNDLE).await?;
    Ok(map.and_then(|map| map.data?.remove(BUNDLE_FILE)))
}

/// Writes the status, if it isn't what it was.
async fn tell(
    gateway: &Gateway,
    judgement: &Judgement,
    progress: &Progress,
    context: &Context,
) -> Result<(), kube::Error> {
    let wanted = status(gateway, judgement, progress, &Time(Timestamp::now()));
    let has = gateway.status.clone().unwrap_or_default();
    // Conditions of others may be among them.
    let ours = |kind: &str| wanted.conditions.iter().any(|it| it.type_ == kind);
    let conditions = has.conditions.iter().filter(|it| ours(&it.type_));
    if conditions.eq(&wanted.conditions)
        && (&has.addresses, &has.listeners) == (&wanted.addresses, &wanted.listeners)
    {
        return Ok(());
    }
    let told = json!({
        "apiVersion": API_VERSION,
        "kind": "Gateway",
        // Not of another of that name.
        "metadata": { "uid": gateway.metadata.uid },
        "status": wanted,
    });
    let (namespace, name) = place(&gateway.metadata);
    let by = PatchParams::apply(MANAGER).force();
    let told = Api::<Gateway>::namespaced_with(context.client.clone(), namespace, &gateways())
        .patch_status(name, &by, &Patch::Apply(&told))
        .await;
    match told {
        // It has gone meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        told => told.map(drop),
    }
}

fn api(context: &Context, gateway: &Gateway, wanted: &Wanted) -> Api<DynamicObject> {
    let (namespace, _) = place(&gateway.metadata);
    Api::namespaced_with(context.client.clone(), namespace, &wanted.resource)
}
