//! The kinds that are understood, as the Kubernetes API names them.

use super::facts::Kind;

/// A kind that is understood. Others of the same name in other groups are somebody else's.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: Kind,
    pub(super) namespaced: bool,
    /// As in `apiVersion`, the preferred one first.
    pub(super) versions: &'static [&'static str],
    /// A cluster may do without: it is defined by a CRD.
    pub(super) optional: bool,
}

/// All of them.
pub(super) static SCHEMAS: [Schema; 13] = [
    Schema::core("Namespace", "namespaces", Kind::Namespace, false),
    Schema::core("Node", "nodes", Kind::Node, false),
    Schema::core("Pod", "pods", Kind::Pod, true),
    Schema::core("Service", "services", Kind::Service, true),
    Schema {
        group: "discovery.k8s.io",
        name: "EndpointSlice",
        plural: "endpointslices",
        kind: Kind::EndpointSlice,
        namespaced: true,
        versions: &["discovery.k8s.io/v1"],
        optional: false,
    },
    Schema::gateway(
        "Gateway",
        "gateways",
        Kind::Gateway,
        &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ],
    ),
    Schema::gateway(
        "HTTPRoute",
        "httproutes",
        Kind::HTTPRoute,
        &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ],
    ),
    Schema::gateway(
        "GRPCRoute",
        "grpcroutes",
        Kind::GRPCRoute,
        &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha2",
        ],
    ),
    Schema::gateway(
        "ReferenceGrant",
        "referencegrants",
        Kind::ReferenceGrant,
        &[
            "gateway.networking.k8s.io/v1beta1",
            "gateway.networking.k8s.io/v1",
        ],
    ),
    Schema {
        group: "ambit.dev",
        name: "TrafficPolicy",
        plural: "trafficpolicies",
        kind: Kind::TrafficPolicy,
        namespaced: true,
        versions: &["ambit.dev/v1alpha1"],
        optional: true,
    },
    Schema::security(
        "AuthorizationPolicy",
        "authorizationpolicies",
        Kind::AuthorizationPolicy,
    ),
    Schema::security(
        "PeerAuthentication",
        "peerauthentications",
        Kind::PeerAuthentication,
    ),
    Schema::security(
        "RequestAuthentication",
        "requestauthentications",
        Kind::RequestAuthentication,
    ),
];

impl Schema {
    const fn core(name: &'static str, plural: &'static str, kind: Kind, namespaced: bool) -> Self {
        Self {
            group: "",
            name,
            plural,
            kind,
            namespaced,
            versions: &["v1"],
            optional: false,
        }
    }

    const fn gateway(
        name: &'static str,
        plural: &'static str,
        kind: Kind,
        versions: &'static [&'static str],
    ) -> Self {
        Self {
            group: "gateway.networking.k8s.io",
            name,
            plural,
            kind,
            namespaced: true,
            versions,
            optional: true,
        }
    }

    const fn security(name: &'static str, plural: &'static str, kind: Kind) -> Self {
        Self {
            group: "security.istio.io",
            name,
            plural,
            kind,
            namespaced: true,
            versions: &["security.istio.io/v1", "security.istio.io/v1beta1"],
            optional: true,
        }
    }

    /// That of a kind.
    ///
    /// # Panics
    /// If a kind is missing in the table.
    pub(super) fn of(kind: Kind) -> &'static Self {
        let mut all = SCHEMAS.iter();
        all.find(|schema| schema.kind == kind)
            .expect("every kind has a schema")
    }

    /// The kind of that name in whichever group.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.name == name)
    }

    /// The kind of that name in that group.
    pub(super) fn find(group: &str, name: &str) -> Option<&'static Self> {
        SCHEMAS
            .iter()
            .find(|schema| schema.group == group && schema.name == name)
    }
}
