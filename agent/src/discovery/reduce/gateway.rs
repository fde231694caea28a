//! Gateways of the waypoints' class, and the labels that send traffic to them.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{FieldError, Reducer, dns_label, dns_name, is_dns_label, settings::annotation};
use crate::{
    discovery::{
        facts::{GatewayFacts, WaypointFacts},
        model::{ObjectName, UseWaypoint, WAYPOINT_CLASS, WaypointFor, WorkloadUid},
    },
    identity::Identity,
};

/// Labels that name a waypoint, on namespaces, pods and Services. An earlier one wins over a later
/// one.
const USE_WAYPOINT: [&str; 2] = [OWN_LABEL, "istio.io/use-waypoint"];
/// On a namespace it makes the waypoint too.
const OWN_LABEL: &str = "ambit.dev/use-waypoint";
/// The waypoint's namespace, where it isn't the object's own.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
const NODE: &str = "ambit.dev/waypoint-node";
const PORT: &str = "ambit.dev/waypoint-port";
/// Where a waypoint takes HBONE on its node, unless it says otherwise: the agent has 15008.
const DEFAULT_PORT: u16 = 15088;
/// What the API says of the listener of a waypoint, wherever it then listens.
const LISTENER_PORT: i64 = 15008;

/// As much of a Gateway as matters here.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct Gateway {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: GatewaySpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewaySpec {
    #[serde(default)]
    gateway_class_name: String,
    #[serde(default)]
    listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    #[serde(default)]
    port: i64,
    #[serde(default)]
    protocol: String,
}

pub(super) fn reduce(
    reducer: &mut Reducer,
    gateway: &Gateway,
    issues: &mut Vec<FieldError>,
) -> Result<GatewayFacts, FieldError> {
    let name = reducer.object_name(&gateway.metadata)?;
    let class = gateway.spec.gateway_class_name.as_str();
    let waypoint = match class {
        WAYPOINT_CLASS => {
            check_listeners(&gateway.spec.listeners)?;
            Some(waypoint(reducer, &name, &gateway.metadata, issues)?)
        }
        _ => None,
    };
    Ok(GatewayFacts {
        name,
        class: reducer.interner.text(class),
        waypoint,
    })
}

/// What the label of a namespace says, and the waypoint that it makes where there is no Gateway.
pub(super) fn of_namespace(
    reducer: &mut Reducer,
    metadata: &ObjectMeta,
    namespace: &str,
    issues: &mut Vec<FieldError>,
) -> (UseWaypoint, Option<WaypointFacts>) {
    let says = use_waypoint(metadata, namespace, issues);
    let labels = metadata.labels.as_ref();
    let own = labels.and_then(|labels| labels.get(OWN_LABEL));
    let made = says
        .named()
        .filter(|name| own.is_some_and(|own| *own == *name.name) && *name.namespace == *namespace)
        .map(|name| WaypointFacts {
            uid: WorkloadUid(format!("Namespace/{name}").into()),
            identity: identity(reducer, name),
            name: ObjectName::clone(name),
            serves: WaypointFor::SERVICES,
            node: None,
            port: DEFAULT_PORT,
        });
    (says, made)
}

/// What the labels of an object in `namespace` say of its waypoint.
pub(super) fn use_waypoint(
    metadata: &ObjectMeta,
    namespace: &str,
    issues: &mut Vec<FieldError>,
) -> UseWaypoint {
    let Some(labels) = metadata.labels.as_ref() else {
        return UseWaypoint::Unset;
    };
    let mut check = |label: &str, value: &str| {
        let is_name = is_dns_label(value);
        if !is_name {
            let expected = "a Gateway's name, or \"none\"; it counts as not set";
            let field = format!("metadata.labels[{label}]");
            issues.push(FieldError::unexpected(field, value, expected));
        }
        is_name
    };
    for label in USE_WAYPOINT {
        let Some(name) = labels.get(label).filter(|value| check(label, value)) else {
            continue;
        };
        if name == "none" {
            return UseWaypoint::Off;
        }
        let elsewhere = labels.get(USE_WAYPOINT_NAMESPACE);
        let elsewhere = elsewhere.filter(|value| check(USE_WAYPOINT_NAMESPACE, value));
        return UseWaypoint::Named(Arc::new(ObjectName {
            namespace: elsewhere.map_or(namespace, String::as_str).into(),
            name: name.as_str().into(),
        }));
    }
    UseWaypoint::Unset
}

/// One listener, of the one protocol that waypoints speak.
fn check_listeners(listeners: &[Listener]) -> Result<(), FieldError> {
    let cure = "a waypoint has one listener: {name: mesh, port: 15008, protocol: HBONE}";
    let wrong = |field: &str, found: &str| {
        Err(FieldError::new(
            format!("spec.listeners{field}"),
            format!("{found}; {cure}"),
        ))
    };
    let [listener] = listeners else {
        return wrong("", &format!("there are {}", listeners.len()));
    };
    if listener.protocol != "HBONE" {
        let found = format!("\"{}\" is not supported", listener.protocol);
        return wrong("[0].protocol", &found);
    }
    if listener.port != LISTENER_PORT {
        return wrong("[0].port", &format!("{} is not 15008", listener.port));
    }
    Ok(())
}

fn waypoint(
    reducer: &mut Reducer,
    name: &ObjectName,
    metadata: &ObjectMeta,
    issues: &mut Vec<FieldError>,
) -> Result<WaypointFacts, FieldError> {
    // It becomes the name of a Service.
    dns_label("metadata.name", &name.name)?;
    let labels = metadata.labels.as_ref();
    let serves = match labels.and_then(|labels| labels.get(WAYPOINT_FOR)) {
        None => WaypointFor::SERVICES,
        Some(text) => WaypointFor::parse(text).unwrap_or_else(|| {
            let expected =
                "\"service\", \"workload\", \"all\" or \"none\"; it counts as \"service\"";
            let field = format!("metadata.labels[{WAYPOINT_FOR}]");
            issues.push(FieldError::unexpected(field, text, expected));
            WaypointFor::SERVICES
        }),
    };
    let node = match annotation(metadata, NODE) {
        None => None,
        Some(node) => {
            let node = dns_name(&format!("metadata.annotations[{NODE}]"), node)?;
            Some(reducer.interner.text(node))
        }
    };
    let port = match annotation(metadata, PORT) {
        None => DEFAULT_PORT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| (1..=65533).contains(port))
            .ok_or_else(|| {
                let field = format!("metadata.annotations[{PORT}]");
                FieldError::unexpected(
                    field,
                    text,
                    "a port between 1 and 65533: it and the next two are taken",
                )
            })?,
    };
    let uid = metadata.uid.as_deref().filter(|uid| !uid.is_empty());
    let derived = || format!("Gateway/{name}");
    Ok(WaypointFacts {
        uid: WorkloadUid(uid.map_or_else(derived, str::to_owned).into()),
        identity: identity(reducer, name),
        name: name.clone(),
        serves,
        node,
        port,
    })
}

fn identity(reducer: &Reducer, name: &ObjectName) -> Identity {
    Identity::new(
        Arc::clone(&reducer.trust_domain),
        Arc::clone(&name.namespace),
        Arc::clone(&name.name),
    )
}
