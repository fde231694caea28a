//! The kinds that the server knows, and how they are called in paths.

use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::TokenReview,
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Event as CoreEvent, Namespace, Node, Pod, Secret, Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRoleBinding,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One kind. Two of the same group and plural are the same.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    /// Has `/status`: then a status is written there and nowhere else.
    pub(super) status: bool,
    /// Reads an object as Kubernetes' own type and writes it again, without fields that the type
    /// doesn't have. None for kinds that a CRD defines.
    pub(super) typed: Option<Typed>,
}

/// Reads and writes an object as a type.
type Typed = fn(&Value) -> Result<Value, serde_json::Error>;

const CORE: &str = "";
const GATEWAY: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "security.istio.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const EVENTS: &str = "events.k8s.io";

/// All kinds. A key of the storage names one by its place here.
pub(super) static RESOURCES: [Resource; 24] = [
    own::<Namespace>(CORE, "namespaces", "Namespace")
        .cluster()
        .with_status(),
    own::<Node>(CORE, "nodes", "Node").cluster().with_status(),
    own::<Pod>(CORE, "pods", "Pod").with_status(),
    own::<Service>(CORE, "services", "Service").with_status(),
    own::<Secret>(CORE, "secrets", "Secret"),
    own::<ConfigMap>(CORE, "configmaps", "ConfigMap"),
    own::<ServiceAccount>(CORE, "serviceaccounts", "ServiceAccount"),
    own::<CoreEvent>(CORE, "events", "Event"),
    own::<EndpointSlice>("discovery.k8s.io", "endpointslices", "EndpointSlice"),
    own::<Deployment>("apps", "deployments", "Deployment").with_status(),
    own::<PodDisruptionBudget>("policy", "poddisruptionbudgets", "PodDisruptionBudget")
        .with_status(),
    own::<Lease>("coordination.k8s.io", "leases", "Lease"),
    own::<ClusterRoleBinding>(RBAC, "clusterrolebindings", "ClusterRoleBinding").cluster(),
    own::<TokenReview>("authentication.k8s.io", "tokenreviews", "TokenReview").cluster(),
    own::<Event>(EVENTS, "events", "Event"),
    custom(ISTIO, "authorizationpolicies", "AuthorizationPolicy"),
    custom(ISTIO, "peerauthentications", "PeerAuthentication"),
    custom(ISTIO, "requestauthentications", "RequestAuthentication"),
    custom(GATEWAY, "gateways", "Gateway"),
    custom(GATEWAY, "gatewayclasses", "GatewayClass").cluster(),
    custom(GATEWAY, "httproutes", "HTTPRoute"),
    custom(GATEWAY, "grpcroutes", "GRPCRoute"),
    custom(GATEWAY, "referencegrants", "ReferenceGrant").version("v1beta1"),
    custom("ambit.dev", "trafficpolicies", "TrafficPolicy").version("v1alpha1"),
];

impl Resource {
    /// `v1`, or `group/version`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As error messages call it: `pods`, `leases.coordination.k8s.io`.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.into()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// A CRD defines it.
    pub(super) fn is_custom(&self) -> bool {
        self.typed.is_none()
    }

    /// Whether an update may leave out the version that it is for.
    pub(super) fn updates_unconditionally(&self) -> bool {
        !self.is_custom() && !matches!(self.kind, "Lease" | "PodDisruptionBudget")
    }

    /// Whether a change of anything but metadata and status counts in `metadata.generation`.
    pub(super) fn has_generation(&self) -> bool {
        self.is_custom() || matches!(self.kind, "Deployment" | "PodDisruptionBudget")
    }

    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    const fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }
}

/// The place in [`RESOURCES`] of what a path names.
pub(super) fn by_path(group: &str, version: &str, plural: &str) -> Option<usize> {
    RESOURCES
        .iter()
        .position(|of| (of.group, of.version, of.plural) == (group, version, plural))
}

/// The place in [`RESOURCES`] of an object's kind.
pub(super) fn of(object: &Value) -> Option<usize> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    RESOURCES
        .iter()
        .position(|of| of.kind == kind && of.api_version() == version)
}

const fn own<T: DeserializeOwned + Serialize>(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group,
        version: "v1",
        plural,
        kind,
        namespaced: true,
        status: false,
        typed: Some(read_and_write::<T>),
    }
}

const fn custom(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource {
        group,
        version: "v1",
        plural,
        kind,
        namespaced: true,
        status: true,
        typed: None,
    }
}

fn read_and_write<T: DeserializeOwned + Serialize>(
    object: &Value,
) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(object)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_and_objects_lead_to_the_same_kind() {
        for (index, resource) in RESOURCES.iter().enumerate() {
            let found = by_path(resource.group, resource.version, resource.plural);
            assert_eq!(found, Some(index), "{resource:?}");
            let object = json!({ "apiVersion": resource.api_version(), "kind": resource.kind });
            assert_eq!(of(&object), Some(index), "{resource:?}");
        }
        assert_eq!(by_path("", "v2", "pods"), None);
        assert_eq!(of(&json!({ "kind": "Pod" })), None);
    }

    #[test]
    fn a_typed_object_loses_unknown_fields_and_is_refused_if_malformed() {
        let secret = by_path("", "v1", "secrets").unwrap();
        let typed = RESOURCES[secret].typed.unwrap();
        let head = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": {} });
        let with = |field: &str, value: Value| {
            let mut object = head.clone();
            object[field] = value;
            typed(&object)
        };
        assert_eq!(with("nonsense", json!(1)).unwrap(), head);
        assert!(with("data", json!({ "key": "not base64" })).is_err());
    }
}
