//! A namespace that names a waypoint has one: if there is no such Gateway, control makes it, and removes what it
//! made when the name goes.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, MANAGER,
    accept::PORT,
    follow::{drive, retry},
    kinds::{CLASS, Gateway, GatewaySpec, Listener, gateways, place},
    objects::MANAGED_BY,
};

/// Labels that name a waypoint, the strongest first.
const LABELS: [&str; 2] = ["ambit.dev/use-waypoint", "istio.io/use-waypoint"];
/// The label that says that the waypoint is in another namespace.
const ELSEWHERE: &str = "istio.io/use-waypoint-namespace";
/// The value that names no waypoint.
const NONE: &str = "none";
/// On what was made for a label, beside [`MANAGED_BY`], which people copy.
const MADE_FOR: &str = "ambit.dev/made-for";

/// Makes Gateways of labels until told to stop.
pub(super) async fn run(context: &Arc<Context>, stop: &CancellationToken) {
    let client = || context.client.clone();
    let config = watcher::Config::default;
    let all = Api::<Gateway>::all_with(client(), &gateways());
    // Who removes a Gateway while the label is there has it again.
    let its_namespace =
        |gateway: Gateway| gateway.metadata.namespace.as_deref().map(ObjectRef::new);
    let controller = Controller::new(Api::<Namespace>::all(client()), config())
        .watches_with(all, gateways(), config(), its_namespace)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, context.clone());
    drive("labels of namespaces", controller).await;
}

async fn reconcile(
    namespace: Arc<Namespace>,
    context: Arc<Context>,
) -> Result<Action, kube::Error> {
    let done = Ok(Action::await_change());
    let own = namespace.metadata.name.as_deref().unwrap_or_default();
    let Some(name) = wanted(&namespace) else {
        return done;
    };
    let gateways = api(&context, own);
    if gateways.get_opt(name).await?.is_some() {
        return done;
    }
    let by = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    match gateways.create(&by, &gateway(own, name)).await {
        Ok(_) => tracing::info!("made Gateway {own}/{name}, which a label of the namespace names"),
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error),
    }
    done
}

/// Removes a Gateway that was made for a label that isn't there any more. True if it did.
pub(super) async fn remove_unwanted(
    gateway: &Gateway,
    context: &Context,
) -> Result<bool, kube::Error> {
    let (own, name) = place(&gateway.metadata);
    if !is_made(gateway) {
        return Ok(false);
    }
    let namespaces = Api::<Namespace>::all(context.client.clone());
    let namespace = namespaces.get_opt(own).await?;
    if namespace.is_none_or(|namespace| wanted(&namespace) == Some(name)) {
        return Ok(false);
    }
    // What somebody has made their own in the meantime stays.
    let as_known = DeleteParams::default().preconditions(Preconditions {
        uid: gateway.metadata.uid.clone(),
        resource_version: gateway.metadata.resource_version.clone(),
    });
    match api(context, own).delete(name, &as_known).await {
        Ok(_) => tracing::info!("removed Gateway {own}/{name}, which no label names any more"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(true)
}

fn api(context: &Context, namespace: &str) -> Api<Gateway> {
    Api::namespaced_with(context.client.clone(), namespace, &gateways())
}

/// The waypoint of its own that a namespace names.
fn wanted(namespace: &Namespace) -> Option<&str> {
    let metadata = &namespace.metadata;
    let label = |name: &str| {
        let labels = metadata.labels.as_ref()?;
        labels.get(name).map(String::as_str)
    };
    let name = LABELS.into_iter().find_map(label)?;
    let here = label(ELSEWHERE).is_none_or(|other| Some(other) == metadata.name.as_deref());
    let ends = metadata.deletion_timestamp.is_some();
    (here && !ends && name != NONE && !name.is_empty()).then_some(name)
}

/// Whether control made a Gateway for a label, and nobody has made it their own since.
pub(super) fn is_made(gateway: &Gateway) -> bool {
    let has = |fields: &Option<BTreeMap<String, String>>, name: &str| {
        fields
            .as_ref()
            .is_some_and(|fields| fields.contains_key(name))
    };
    let metadata = &gateway.metadata;
    let label = metadata.labels.as_ref().and_then(|it| it.get(MANAGED_BY));
    label.is_some_and(|by| by == "ambit") && has(&metadata.annotations, MADE_FOR)
}

fn gateway(namespace: &str, name: &str) -> Gateway {
    let own = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let spec = GatewaySpec {
        gateway_class_name: CLASS.into(),
        listeners: vec![Listener {
            name: "mesh".into(),
            port: PORT,
            protocol: "HBONE".into(),
            ..Listener::default()
        }],
        ..GatewaySpec::default()
    };
    let mut gateway = Gateway::new(name, &gateways(), spec);
    gateway.metadata = ObjectMeta {
        namespace: Some(namespace.into()),
        labels: Some(own(MANAGED_BY, "ambit")),
        annotations: Some(own(MADE_FOR, "namespace-label")),
        ..gateway.metadata
    };
    gateway
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::waypoints::accept::judge;

    #[test]
    fn a_label_names_a_waypoint_of_its_own_namespace() {
        let (ours, istio) = (LABELS[0], LABELS[1]);
        let table = [
            (json!({}), None),
            (json!({ ours: "w" }), Some("w")),
            (json!({ istio: "w" }), Some("w")),
            (json!({ ours: "w", istio: "other" }), Some("w")),
            (json!({ ours: "none", istio: "other" }), None),
            (json!({ istio: "none" }), None),
            (json!({ ours: "" }), None),
            (json!({ istio: "w", ELSEWHERE: "street" }), None),
            (json!({ istio: "w", ELSEWHERE: "shop" }), Some("w")),
            (json!({ ELSEWHERE: "shop" }), None),
        ];
        let namespace = |labels: &Value| -> Namespace {
            let metadata = json!({ "name": "shop", "labels": labels });
            serde_json::from_value(json!({ "metadata": metadata })).unwrap()
        };
        for (labels, expected) in table {
            assert_eq!(wanted(&namespace(&labels)), expected, "{labels}");
        }
        let mut ending = namespace(&json!({ ours: "w" }));
        ending.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(wanted(&ending), None);
    }

    #[test]
    fn what_is_made_of_a_label_is_accepted_and_known_again_until_somebody_takes_it() {
        let made = gateway("shop", "w");
        assert_eq!(judge(&made).accepted.reason, "Accepted");
        assert!(is_made(&made));
        let mut copied = made.clone();
        copied.metadata.annotations = None;
        let mut taken = made;
        taken.metadata.labels = None;
        assert!(!is_made(&copied) && !is_made(&taken));
    }
}
