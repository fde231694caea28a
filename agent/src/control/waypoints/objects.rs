//! The objects that make a waypoint of a Gateway. Pure.

mod deployment;

use std::collections::BTreeMap;

use kube::{Resource as _, api::ApiResource};
use serde_json::{Value, json};

use super::{
    accept::PORT,
    kinds::{CLASS, Gateway, gateways, place},
};
use crate::discovery::model::GATEWAY_CLASS_NAME;

/// What selects a waypoint's objects and pods.
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Who made an object.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The key of the trust bundle in its ConfigMap, and its file.
pub(super) const BUNDLE_FILE: &str = "trust-bundle.pem";
/// How many waypoints a Gateway has if nobody says: one may go while the other serves.
const REPLICAS: i64 = 2;

/// The image of control itself, and how it is pulled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// As a container names it.
    pub(super) name: String,
    /// `IfNotPresent` and so on, if it isn't what the name's tag implies.
    pub(super) pull_policy: Option<String>,
    /// Names of Secrets, which must be in the Gateway's namespace.
    pub(super) pull_secrets: Vec<String>,
}

/// What is the same for all waypoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Common {
    /// What they run.
    pub(super) image: Image,
    /// Of the authority: host:port.
    pub(super) ca_address: String,
    /// Of all identities.
    pub(super) trust_domain: String,
    /// What their command line says beyond what follows from the Gateway.
    pub(super) arguments: Vec<String>,
    /// Roots, in PEM.
    pub(super) trust_bundle: String,
}

/// An object that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its kind, as the API server calls it.
    pub(super) resource: ApiResource,
    /// What is applied. Fields that it leaves out are others'.
    pub(super) object: Value,
}

impl Wanted {
    /// Of the Gateway's namespace.
    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// All objects of an accepted Gateway, in the order in which they are applied: a pod finds what it mounts. `replicas`
/// is what the Gateway asks for, or else what its Deployment has by now.
pub(super) fn objects(gateway: &Gateway, common: &Common, replicas: Option<i64>) -> Vec<Wanted> {
    let of = |kind: &Kind, fields: Value| wanted(gateway, kind, fields);
    let (_, name) = place(&gateway.metadata);
    let selector = json!({ GATEWAY_NAME: name });
    vec![
        trust_bundle(gateway, &common.trust_bundle),
        // Only the pods that control makes have a token of it.
        of(
            &SERVICE_ACCOUNT,
            json!({ "automountServiceAccountToken": false }),
        ),
        of(
            &SERVICE,
            json!({ "spec": {
                "type": "ClusterIP",
                "ipFamilyPolicy": "PreferDualStack",
                "selector": selector,
                "ports": [
                    { "name": "hbone", "port": PORT, "protocol": "TCP", "targetPort": "hbone" },
                ],
            } }),
        ),
        // Also with one replica a node can be drained.
        of(
            &BUDGET,
            json!({ "spec": {
                "maxUnavailable": 1,
                "selector": { "matchLabels": selector },
            } }),
        ),
        of(
            &DEPLOYMENT,
            deployment::fields(gateway, common, replicas.unwrap_or(REPLICAS)),
        ),
    ]
}

/// What a waypoint trusts. Also a Gateway that isn't accepted any more has one whose waypoint runs on.
pub(super) fn trust_bundle(gateway: &Gateway, bundle: &str) -> Wanted {
    wanted(
        gateway,
        &CONFIG_MAP,
        json!({ "data": { BUNDLE_FILE: bundle } }),
    )
}

/// Kinds that are made: group, version, kind, plural.
type Kind = [&'static str; 4];
pub(super) const CONFIG_MAP: Kind = ["", "v1", "ConfigMap", "configmaps"];
pub(super) const SERVICE_ACCOUNT: Kind = ["", "v1", "ServiceAccount", "serviceaccounts"];
pub(super) const SERVICE: Kind = ["", "v1", "Service", "services"];
pub(super) const BUDGET: Kind = [
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets",
];
pub(super) const DEPLOYMENT: Kind = ["apps", "v1", "Deployment", "deployments"];

/// A kind as the API server calls it.
pub(super) fn resource([group, version, kind, plural]: &Kind) -> ApiResource {
    let api_version = match *group {
        "" => (*version).to_owned(),
        group => format!("{group}/{version}"),
    };
    ApiResource {
        group: (*group).into(),
        version: (*version).into(),
        api_version,
        kind: (*kind).into(),
        plural: (*plural).into(),
    }
}

/// The fields of an object with the head that all have.
fn wanted(gateway: &Gateway, kind: &Kind, fields: Value) -> Wanted {
    let (namespace, gateway_name) = place(&gateway.metadata);
    let name = match *kind {
        CONFIG_MAP => format!("{gateway_name}-trust-bundle"),
        _ => gateway_name.to_owned(),
    };
    let resource = resource(kind);
    let mut owner = json!(gateway.controller_owner_ref(&gateways()));
    owner["blockOwnerDeletion"] = json!(true);
    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "labels": labels(gateway),
        "ownerReferences": [owner],
    });
    let annotations = annotations(gateway);
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let mut object = fields;
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(resource.kind);
    object["metadata"] = metadata;
    Wanted { resource, object }
}

/// Labels of every object and pod: the Gateway's for its infrastructure, and ours, which are stronger.
fn labels(gateway: &Gateway) -> BTreeMap<String, String> {
    let (_, name) = place(&gateway.metadata);
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let mut labels = infrastructure.map_or_else(BTreeMap::new, |it| it.labels.clone());
    let own = [
        ("app.kubernetes.io/name", "ambit-waypoint"),
        ("app.kubernetes.io/part-of", "ambit"),
        (MANAGED_BY, "ambit"),
        (GATEWAY_NAME, name),
        (GATEWAY_CLASS_NAME, CLASS),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

fn annotations(gateway: &Gateway) -> BTreeMap<String, String> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    infrastructure.map_or_else(BTreeMap::new, |it| it.annotations.clone())
}

#[cfg(test)]
mod tests;
