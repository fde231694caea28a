//! What the admin endpoint says in JSON, and the operator's commands read.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::discovery::model::{Enrolment, Service, Tunnel, Workload};

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
}

impl WorkloadView {
    pub(super) fn of(workload: &Workload) -> Self {
        let enrolment = match workload.enrolment {
            Enrolment::Enrolled => "enrolled",
            Enrolment::NotLabelled => "not labelled",
            Enrolment::Disabled => "disabled",
            Enrolment::HostNetwork => "host network",
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
    pub(super) fn of(service: &Service) -> Self {
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
