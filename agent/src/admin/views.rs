//! What the admin endpoint says in JSON, and the operator's commands read.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    discovery::{
        model::{Enrolment, Service, Tunnel, Workload},
        store::Snapshot,
    },
    policy::{
        PolicySet,
        model::{
            AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Target, TargetReference,
        },
    },
};

/// A pod that the mesh knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadView {
    /// Namespace and name.
    pub name: String,
    /// This life of the pod.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node it runs on.
    pub node: String,
    /// Its SPIFFE id.
    pub identity: String,
    /// `enrolled`, or why it isn't.
    pub enrolment: String,
    /// How agents of other nodes reach it.
    pub tunnel: String,
    /// Whether it is ready.
    pub ready: bool,
    /// The waypoint that traffic addressed to it goes through.
    pub waypoint: Option<String>,
}

impl WorkloadView {
    pub(super) fn of(workload: &Workload, snapshot: &Snapshot) -> Self {
        let enrolment = match workload.enrolment {
            Enrolment::Enrolled => "enrolled",
            Enrolment::NotLabelled => "not labelled",
            Enrolment::Disabled => "disabled",
            Enrolment::HostNetwork => "host network",
            Enrolment::Waypoint => "waypoint",
        };
        let tunnel = match workload.tunnel {
            Tunnel::NodeAgent => "node agent",
            Tunnel::PodAddress => "pod address",
        };
        Self {
            name: workload.name.to_string(),
            uid: workload.uid.to_string(),
            addresses: workload.addresses.clone(),
            node: workload.node.to_string(),
            identity: workload.identity.to_string(),
            enrolment: enrolment.to_owned(),
            tunnel: tunnel.to_owned(),
            ready: workload.ready,
            waypoint: snapshot
                .waypoint_of_workload(workload)
                .map(ToString::to_string),
        }
    }
}

/// A service with its ready endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Namespace and name.
    pub name: String,
    /// Its addresses; none for a headless service.
    pub vips: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<u16>,
    /// Ready endpoints.
    pub endpoints: Vec<EndpointView>,
    /// The waypoint that traffic addressed to it goes through.
    pub waypoint: Option<String>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name of the service port that it serves.
    pub port_name: String,
    /// The node it is on, if known.
    pub node: Option<String>,
}

impl ServiceView {
    pub(super) fn of(service: &Service, snapshot: &Snapshot) -> Self {
        let endpoints = service.endpoints.iter().map(|endpoint| EndpointView {
            address: SocketAddr::new(endpoint.address, endpoint.port),
            port_name: endpoint.port_name.to_string(),
            node: endpoint.node.as_ref().map(ToString::to_string),
        });
        Self {
            name: service.name.to_string(),
            vips: service.vips.clone(),
            ports: service.ports.iter().map(|port| port.port).collect(),
            endpoints: endpoints.collect(),
            waypoint: snapshot
                .waypoint_of_service(service)
                .map(ToString::to_string),
        }
    }
}

/// A certificate in use. Never its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// The SPIFFE id it was asked for.
    pub identity: String,
    /// Serial number, hexadecimal; absent until the first was issued.
    pub serial: Option<String>,
    /// Start of validity, RFC 3339.
    pub not_before: Option<String>,
    /// End of validity, RFC 3339.
    pub not_after: Option<String>,
    /// Why the last request brought none, if it didn't.
    pub error: Option<String>,
}

impl CertificateView {
    /// End of validity, if there is a certificate.
    #[must_use]
    pub fn end(&self) -> Option<Timestamp> {
        self.not_after.as_ref()?.parse().ok()
    }
}

/// A policy in force, or in dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Namespace and name.
    pub name: String,
    /// `AuthorizationPolicy`, `PeerAuthentication` or `RequestAuthentication`.
    pub kind: String,
    /// How far it reaches.
    pub scope: String,
    /// The labels that a workload must have. Empty: all workloads of the scope.
    pub selector: BTreeMap<String, String>,
    /// Kind and name of each of its `targetRefs`.
    pub targets: Vec<String>,
    /// What an AuthorizationPolicy does with connections that a rule matches.
    pub action: Option<String>,
    /// How many rules an AuthorizationPolicy or a RequestAuthentication has.
    pub rules: Option<usize>,
    /// What the rules of an AuthorizationPolicy ask that only HTTP can decide, as in `paths` or
    /// `request.headers[x-user]`.
    #[serde(default)]
    pub http: Vec<String>,
    /// Whose tokens a RequestAuthentication trusts.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// Whether it is only reported on, never enforced.
    pub dry_run: bool,
    /// A PeerAuthentication's mode.
    pub mode: Option<String>,
    /// A PeerAuthentication's modes for single ports.
    pub ports: BTreeMap<u16, String>,
}

impl PolicyView {
    pub(super) fn of_authorization(policy: &AuthorizationPolicy, all: &PolicySet) -> Self {
        let (selector, targets) = attachment(&policy.target);
        let fields = policy.rules.iter().flat_map(|rule| &rule.http_fields);
        let mut http: Vec<_> = fields.map(|path| last_of(path).to_owned()).collect();
        http.sort();
        http.dedup();
        Self {
            name: policy.name.to_string(),
            kind: "AuthorizationPolicy".to_owned(),
            scope: all.authorization_scope(policy).to_string(),
            selector,
            targets,
            action: Some(policy.action.to_string()),
            rules: Some(policy.rules.len()),
            http,
            issuers: Vec::new(),
            dry_run: policy.dry_run,
            mode: None,
            ports: BTreeMap::new(),
        }
    }

    pub(super) fn of_request_authentication(
        policy: &RequestAuthentication,
        all: &PolicySet,
    ) -> Self {
        let (selector, targets) = attachment(&policy.target);
        let rules = policy.rules.iter();
        Self {
            name: policy.name.to_string(),
            kind: "RequestAuthentication".to_owned(),
            scope: all.request_authentication_scope(policy).to_string(),
            selector,
            targets,
            action: None,
            rules: Some(policy.rules.len()),
            http: Vec::new(),
            issuers: rules.map(|rule| rule.issuer.clone()).collect(),
            dry_run: false,
            mode: None,
            ports: BTreeMap::new(),
        }
    }

    pub(super) fn of_peer_authentication(policy: &PeerAuthentication, all: &PolicySet) -> Self {
        let ports = policy.ports.iter();
        Self {
            name: policy.name.to_string(),
            kind: "PeerAuthentication".to_owned(),
            scope: all.peer_authentication_scope(policy).to_string(),
            selector: policy.selector.0.clone(),
            targets: Vec::new(),
            action: None,
            rules: None,
            http: Vec::new(),
            issuers: Vec::new(),
            dry_run: false,
            mode: Some(policy.mode.to_string()),
            ports: ports
                .map(|(port, mode)| (*port, mode.to_string()))
                .collect(),
        }
    }
}

/// The labels that a policy selects by, or what it names.
fn attachment(target: &Target) -> (BTreeMap<String, String>, Vec<String>) {
    match target {
        Target::Workloads(selector) => (selector.0.clone(), Vec::new()),
        Target::References(references) => {
            let named = |it: &TargetReference| format!("{}/{}", it.kind, it.name);
            (BTreeMap::new(), references.iter().map(named).collect())
        }
    }
}

/// `paths` of `to[0].operation.paths`, and the key of `when[0].key request.headers[a.b]`.
fn last_of(path: &str) -> &str {
    let key = path.split_once(' ').map(|(_, key)| key);
    key.or_else(|| path.rsplit('.').next()).unwrap_or(path)
}

/// An object that can't be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// The file, the API server, or what several objects are at odds about.
    pub source: String,
    /// Kind, namespace and name, as far as they could be read.
    pub object: Option<String>,
    /// The field, as a path.
    pub field: Option<String>,
    /// What is wrong, and what serves on.
    pub message: String,
}
