//! The Gateway API's kinds, as far as control reads and writes them.
//!
//! They are read without demands: what a real API server has let through, whatever its version of the
//! schemas, must not keep the rest from being followed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    api::ApiResource,
    core::{Object, ObjectMeta},
};
use serde::{Deserialize, Serialize};

pub(super) use crate::discovery::model::WAYPOINT_CLASS as CLASS;

/// The group and version of both kinds.
pub(super) const API_VERSION: &str = "gateway.networking.k8s.io/v1";
/// What a GatewayClass calls this controller.
pub(super) const CONTROLLER: &str = "ambit.dev/waypoint";

/// A Gateway of any class.
pub(super) type Gateway = Object<GatewaySpec, GatewayStatus>;
/// A GatewayClass.
pub(super) type GatewayClass = Object<GatewayClassSpec, GatewayClassStatus>;

/// How the API server calls Gateways.
pub(super) fn gateways() -> ApiResource {
    kind("Gateway", "gateways")
}

/// How the API server calls GatewayClasses.
pub(super) fn gateway_classes() -> ApiResource {
    kind("GatewayClass", "gatewayclasses")
}

/// How the API server calls a kind of the Gateway API.
pub(super) fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "gateway.networking.k8s.io".into(),
        version: "v1".into(),
        api_version: API_VERSION.into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// Whether a Gateway is a waypoint.
pub(super) fn is_waypoint(gateway: &Gateway) -> bool {
    gateway.spec.gateway_class_name == CLASS
}

/// Namespace and name of an object; what it doesn't have is empty.
pub(super) fn place(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GatewaySpec {
    /// Who is to run it.
    pub(super) gateway_class_name: String,
    /// Where it is to listen.
    pub(super) listeners: Vec<Listener>,
    /// Addresses that it is to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) addresses: Vec<WantedAddress>,
    /// What its objects are to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) infrastructure: Option<Infrastructure>,
}

/// Where a Gateway listens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Listener {
    /// Tells it from the Gateway's others.
    pub(super) name: String,
    /// TCP or UDP.
    pub(super) port: u16,
    /// What is spoken there.
    pub(super) protocol: String,
    /// For which names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<String>,
    /// Certificates of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<serde_json::Value>,
    /// Which routes may attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_routes: Option<AllowedRoutes>,
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct AllowedRoutes {
    /// If empty, those that suit the protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kinds: Vec<serde_json::Value>,
}

/// An address that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct WantedAddress {
    /// `IPAddress` if it isn't said.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    /// Any one will do if it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
}

/// What the objects made for a Gateway are to have.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Infrastructure {
    /// Labels of each.
    pub(super) labels: BTreeMap<String, String>,
    /// Annotations of each.
    pub(super) annotations: BTreeMap<String, String>,
    /// Settings in an object of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters_ref: Option<serde_json::Value>,
}

/// How a Gateway fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct GatewayStatus {
    /// Where clients find it.
    pub(super) addresses: Vec<Address>,
    /// Of the whole.
    pub(super) conditions: Vec<Condition>,
    /// Of each listener.
    pub(super) listeners: Vec<ListenerStatus>,
}

/// An address that a Gateway has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Address {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The address.
    pub(super) value: String,
}

/// How a listener fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListenerStatus {
    /// The listener's.
    pub(super) name: String,
    /// Routes that have this listener as a parent: none, for those of a waypoint have Services.
    pub(super) attached_routes: i32,
    /// Routes that could.
    pub(super) supported_kinds: Vec<serde_json::Value>,
    /// Of this listener.
    pub(super) conditions: Vec<Condition>,
}

/// Who runs the Gateways of a class.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GatewayClassSpec {
    /// The controller's name.
    pub(super) controller_name: String,
    /// Settings in an object of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters_ref: Option<serde_json::Value>,
}

/// How a GatewayClass fares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct GatewayClassStatus {
    /// Whether somebody runs its Gateways.
    pub(super) conditions: Vec<Condition>,
}
