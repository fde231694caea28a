//! Kubernetes objects to [`facts`](super::facts): checks them and keeps what the mesh needs.
//!
//! A value that makes an object useless is an error; one that can be done without (a label, an
//! annotation) goes to the list of issues, and the object serves without it. Names are checked
//! again here, because a manifest in a directory has met no API server, and an identity is made
//! of them.

mod gateway;
mod intern;
mod pod;
mod route;
mod service;
mod settings;
mod telemetry;
mod traffic_policy;

use std::{fmt::Display, net::IpAddr, sync::Arc};

pub use self::settings::enrolling_label;

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use self::intern::Interner;
pub(crate) use self::pod::derived_uid;
pub(super) use self::{
    gateway::Gateway,
    route::{GrpcMatch, HttpMatch, RawMatch, ReferenceGrant, Route},
    traffic_policy::TrafficPolicy,
};
use super::{
    facts::{
        GatewayFacts, GrantFacts, NamespaceFacts, NodeFacts, PodFacts, ServiceFacts, SliceFacts,
    },
    model::{self, ObjectName},
};

/// What is wrong with one field of an object, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Path of the field, `spec.ports[0].port`.
    pub field: String,
    /// What it holds and what it may hold.
    pub reason: String,
    /// What kind of mistake it is.
    pub fault: Fault,
}

/// Kinds of mistakes, as the Gateway API's policies tell them apart (GEP-713).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// It can't be so, whatever else there is.
    #[default]
    Invalid,
    /// Another object has what it asks for.
    Conflicted,
    /// What it is to hold for isn't there.
    TargetNotFound,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            fault: Fault::Invalid,
        }
    }

    /// As a mistake of another kind.
    pub(crate) fn of_fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    fn unexpected(field: impl Into<String>, value: impl Display, expected: &str) -> Self {
        Self::new(field, format!("\"{value}\" is not {expected}"))
    }
}

/// The label by which a Node says where it is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Reduces objects, sharing equal parts (names, label maps) between them.
#[derive(Debug)]
pub struct Reducer {
    trust_domain: Arc<str>,
    interner: Interner,
}

impl Reducer {
    /// The trust domain becomes part of every identity.
    #[must_use]
    pub fn new(trust_domain: impl Into<Arc<str>>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            interner: Interner::default(),
        }
    }

    /// Keeps a namespace's enrolment and exclusions.
    ///
    /// # Errors
    /// A name that is missing or not a DNS label; an enrolment that can't be read, since a slip of
    /// the pen must not take a namespace out of the mesh, and so its traffic out of TLS.
    pub fn namespace(
        &mut self,
        namespace: &Namespace,
        issues: &mut Vec<FieldError>,
    ) -> Result<NamespaceFacts, FieldError> {
        let metadata = &namespace.metadata;
        let name = present("metadata.name", metadata.name.as_deref())?;
        let name = dns_label("metadata.name", name)?;
        let mut unreadable = Vec::new();
        let enrolment = settings::enrolment(metadata, &mut unreadable);
        if enrolment.is_none()
            && let Some(error) = unreadable.pop()
        {
            return Err(error);
        }
        issues.extend(unreadable);
        let exclusions = settings::exclusions(metadata, issues);
        let (waypoint, makes_waypoint) = gateway::of_namespace(self, metadata, name, issues);
        Ok(NamespaceFacts {
            name: self.interner.text(name),
            enrolment,
            exclusions: self.interner.exclusions(exclusions),
            waypoint,
            makes_waypoint,
        })
    }

    /// Keeps whether the node's pods are tunnelled to directly, its addresses and its zone.
    ///
    /// # Errors
    /// A name that is missing or not a DNS name, an address that can't be one.
    pub fn node(
        &mut self,
        node: &Node,
        issues: &mut Vec<FieldError>,
    ) -> Result<NodeFacts, FieldError> {
        let name = present("metadata.name", node.metadata.name.as_deref())?;
        let name = dns_name("metadata.name", name)?;
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE));
        Ok(NodeFacts {
            name: self.interner.text(name),
            tunnel_to_pods: settings::tunnel_to_pod(&node.metadata, issues),
            addresses: internal_addresses(node)?,
            zone: zone.map(|zone| self.interner.text(zone)),
        })
    }

    /// Keeps what a workload is made of.
    ///
    /// # Errors
    /// A name, address or port that can't be one.
    pub fn pod(&mut self, pod: Pod, issues: &mut Vec<FieldError>) -> Result<PodFacts, FieldError> {
        pod::reduce(self, pod, issues)
    }

    /// Keeps addresses, TCP ports and selector of a service.
    ///
    /// # Errors
    /// A name, address or port that can't be one.
    pub fn service(
        &mut self,
        service: Service,
        issues: &mut Vec<FieldError>,
    ) -> Result<ServiceFacts, FieldError> {
        service::reduce(self, service, issues)
    }

    /// Keeps the endpoints of a slice that serve over TCP.
    ///
    /// # Errors
    /// A name, address or port that can't be one.
    pub fn endpoint_slice(&mut self, slice: &EndpointSlice) -> Result<SliceFacts, FieldError> {
        service::reduce_slice(self, slice)
    }

    /// Keeps what a waypoint is made of; of other Gateways only that they are there.
    ///
    /// # Errors
    /// A name that can't be one; a waypoint's listener or annotation of no use.
    pub(super) fn gateway(
        &mut self,
        gateway: &Gateway,
        issues: &mut Vec<FieldError>,
    ) -> Result<GatewayFacts, FieldError> {
        gateway::reduce(self, gateway, issues)
    }

    /// Keeps what a route says of requests to Services.
    ///
    /// # Errors
    /// A field that can't be as it is. What can't be done here is an issue, and its requests are refused.
    pub(super) fn route<M: RawMatch>(
        &mut self,
        route: &Route<M>,
        issues: &mut Vec<FieldError>,
    ) -> Result<model::Route, FieldError> {
        route::reduce(self, route, issues)
    }

    /// Keeps which routes of other namespaces may refer to Services.
    ///
    /// # Errors
    /// A name that can't be one.
    pub(super) fn reference_grant(
        &mut self,
        grant: &ReferenceGrant,
    ) -> Result<GrantFacts, FieldError> {
        route::reduce_grant(self, grant)
    }

    /// Keeps a policy as it is.
    ///
    /// # Errors
    /// A field that isn't known, is out of its bounds, or would have no effect.
    pub(super) fn traffic_policy(
        &mut self,
        policy: &TrafficPolicy,
    ) -> Result<model::TrafficPolicy, FieldError> {
        traffic_policy::reduce(self, policy)
    }

    fn object_name(&mut self, metadata: &ObjectMeta) -> Result<ObjectName, FieldError> {
        let name = present("metadata.name", metadata.name.as_deref())?;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        Ok(ObjectName {
            namespace: self
                .interner
                .text(dns_label("metadata.namespace", namespace)?),
            name: dns_name("metadata.name", name)?.into(),
        })
    }
}

fn internal_addresses(node: &Node) -> Result<Vec<IpAddr>, FieldError> {
    let status = node.status.as_ref();
    let all = status.and_then(|status| status.addresses.as_ref());
    let all = all.into_iter().flatten().enumerate();
    all.filter(|(_, address)| address.type_ == "InternalIP")
        .map(|(index, found)| address(format!("status.addresses[{index}].address"), &found.address))
        .collect()
}

/// Parses an address; an IPv4-mapped one becomes IPv4, as everything behind compares addresses.
fn address(field: impl Into<String>, text: &str) -> Result<IpAddr, FieldError> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(FieldError::unexpected(field, text, "an IP address")),
    }
}

fn port(field: impl Into<String>, number: i32) -> Result<u16, FieldError> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(FieldError::unexpected(
            field,
            number,
            "a port between 1 and 65535",
        )),
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP"))
}

fn present<'a>(field: &str, text: Option<&'a str>) -> Result<&'a str, FieldError> {
    text.ok_or_else(|| FieldError::new(field, "is missing"))
}

/// RFC 1123 as Kubernetes demands it of namespaces: up to 63 of `a-z0-9-`, none at the ends `-`.
fn dns_label<'a>(field: &str, text: &'a str) -> Result<&'a str, FieldError> {
    if is_dns_label(text) {
        return Ok(text);
    }
    let expected = "a DNS label (up to 63 of a-z, 0-9 and '-', none of the ends '-')";
    Err(FieldError::unexpected(field, text, expected))
}

/// DNS labels joined by dots, 253 characters at most.
fn dns_name<'a>(field: &str, text: &'a str) -> Result<&'a str, FieldError> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        return Ok(text);
    }
    let expected = "a DNS name (up to 253 of a-z, 0-9, '-' and '.', a-z or 0-9 at the ends)";
    Err(FieldError::unexpected(field, text, expected))
}

fn is_dns_label(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests;
