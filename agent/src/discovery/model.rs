//! Checked types: a Kubernetes object stops at `discovery`, these go on.

mod route;
mod traffic_policy;
mod waypoint;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

pub use self::route::{
    AllowedOrigins, Attached, Backend, BackendTarget, Cors, Filters, Found, Fraction, HeaderChange,
    InvalidBackend, Listed, Mirror, Origin, PathChange, PathMatch, Pattern, PatternError, Redirect,
    RequestMatch, Retry, Rewrite, Route, RouteEntry, RouteKind, RouteParent, RouteRule, RouteTable,
    TextMatch, Timeouts, is_grpc,
};
pub use self::traffic_policy::{
    BackendPolicy, CircuitLimits, ConnectionPool, FaultAbort, FaultDelay, FaultPolicy, FaultShare,
    HashCookie, HashKey, LoadBalancing, OutlierEjection, RateLimit, RateLimitBy, RetryBudgetPolicy,
    Strategy, SuccessRate, TrafficPolicy, TrafficPolicyTarget, ZonePreference,
};

pub use self::waypoint::{
    GATEWAY_CLASS_NAME, UseWaypoint, WAYPOINT_CLASS, Waypoint, WaypointFor, WaypointPlace,
};
use crate::identity::Identity;

/// Identifies one life of one pod: a pod of the same name or address later has another.
///
/// `metadata.uid`; where a manifest has none, derived from namespace, name and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadUid(pub Arc<str>);

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The object's own name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The DNS name of the service of this name. `cluster_domain` is the end of all such names,
    /// `cluster.local` in most clusters.
    #[must_use]
    pub fn service_host(&self, cluster_domain: &str) -> String {
        format!("{}.{}.svc.{cluster_domain}", self.name, self.namespace)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that the mesh knows: running or about to, never one that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// This life of the pod.
    pub uid: WorkloadUid,
    /// Namespace and name of the pod.
    pub name: ObjectName,
    /// `status.podIPs`, IPv4-mapped IPv6 addresses as IPv4. Empty until the CNI has answered.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`; empty until the pod is scheduled.
    pub node: Arc<str>,
    /// `status.hostIPs`: where the node's agent is reached.
    pub node_addresses: Vec<IpAddr>,
    /// From trust domain, namespace and `spec.serviceAccountName` (`default` if absent).
    pub identity: Identity,
    /// Whether the pod is captured, and what said so.
    pub enrolment: Enrolment,
    /// The pod's labels, which policies select by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What the pod or its namespace excluded from capture.
    pub exclusions: Arc<Exclusions>,
    /// How an agent elsewhere reaches the workload over HBONE.
    pub tunnel: Tunnel,
    /// The waypoint that the pod or its namespace names, whether there is one of the name or not.
    pub waypoint: Option<Arc<ObjectName>>,
    /// The `Ready` condition; absent counts as ready, so that bare manifests work.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set: its processes end, and its address may be another's soon.
    pub terminating: bool,
    /// Names for metrics and logs.
    pub telemetry: Arc<TelemetryNames>,
}

impl Workload {
    /// Whether the pod is captured.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        matches!(self.enrolment, Enrolment::Enrolled)
    }

    /// Whether connections of its own come to its node's agent: all of an enrolled pod's, and those of a waypoint's
    /// to enrolled pods of its node.
    #[must_use]
    pub fn is_client_here(&self) -> bool {
        matches!(self.enrolment, Enrolment::Enrolled | Enrolment::Waypoint)
    }
}

/// Whether a pod takes part, and why not if it doesn't. The text is shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// By its own label or its namespace's.
    Enrolled,
    /// Neither label is there.
    NotLabelled,
    /// Its own label, or its namespace's, says no.
    Disabled,
    /// `spec.hostNetwork`: it has no interface of its own.
    HostNetwork,
    /// Not by a label: it is a waypoint, and speaks HBONE itself. Only to pods of its node it may speak as pods of the
    /// mesh speak to one another there.
    Waypoint,
}

impl Enrolment {
    /// What follows for a pod from `asked`, which its own label, or else its namespace's, says.
    #[must_use]
    pub fn of(host_network: bool, asked: Option<bool>, labels: &BTreeMap<String, String>) -> Self {
        let class = labels.get(GATEWAY_CLASS_NAME);
        match asked {
            _ if host_network => Self::HostNetwork,
            Some(true) => Self::Enrolled,
            _ if class.is_some_and(|class| class == WAYPOINT_CLASS) => Self::Waypoint,
            Some(false) => Self::Disabled,
            None => Self::NotLabelled,
        }
    }
}

/// How an agent on another node reaches a workload.
///
/// The node's agent, unless the annotation `ambit.dev/tunnel: pod` on the pod or on its Node says
/// otherwise, or the node's address isn't known (`status.hostIP` is missing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// An Ambit agent runs on its node: node address, port 15008.
    NodeAgent,
    /// Its node runs another HBONE implementation: pod address, port 15008.
    PodAddress,
}

/// Traffic that is left alone, from the annotations of pod and namespace together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Exclusions {
    /// Destination ports of connections the pod opens.
    pub outbound_ports: Vec<u16>,
    /// Ports of the pod that others connect to.
    pub inbound_ports: Vec<u16>,
    /// Destination networks of connections the pod opens.
    pub outbound_cidrs: Vec<IpNet>,
    /// The pod's sockets never become members of the splice. Its traffic is captured all the same.
    pub no_splice: bool,
}

/// The label values of Istio's standard metrics. `unknown` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TelemetryNames {
    /// The owner's name (Deployment, not ReplicaSet), or the pod's.
    pub workload: Arc<str>,
    /// `deployment`, `job`, `pod`, ...: the middle part of `k8s.<type>.name` in baggage.
    pub workload_type: Arc<str>,
    /// `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, or the workload.
    pub canonical_service: Arc<str>,
    /// `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, `latest`.
    pub canonical_revision: Arc<str>,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
}

/// A Kubernetes Service with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.clusterIPs` (and external IPs); empty for a headless service.
    pub vips: Vec<IpAddr>,
    /// TCP ports only.
    pub ports: Vec<ServicePort>,
    /// What the Service asks for.
    pub traffic_distribution: TrafficDistribution,
    /// The waypoint that the Service or its namespace names, whether there is one of the name or not.
    pub waypoint: Option<Arc<ObjectName>>,
    /// Ready endpoints of every EndpointSlice of the service, each with its own port; where none
    /// is ready, those that still serve while they terminate. Sorted, without duplicates.
    pub endpoints: Arc<[Endpoint]>,
}

impl Service {
    /// What is spoken at one of its ports.
    #[must_use]
    pub fn protocol(&self, port: u16) -> AppProtocol {
        let mut ports = self.ports.iter();
        let port = ports.find(|served| served.port == port);
        port.map(|port| port.protocol).unwrap_or_default()
    }

    /// All endpoints of one of its ports.
    pub fn of_port(&self, port: u16) -> impl Iterator<Item = &Endpoint> {
        let ports = self.ports.iter().filter(move |served| served.port == port);
        let names: Vec<&Arc<str>> = ports.map(|served| &served.name).collect();
        let all = self.endpoints.iter();
        all.filter(move |endpoint| names.contains(&&endpoint.port_name))
    }

    /// The endpoints for one of its ports among which a client on `node` has the choice.
    #[must_use]
    pub fn candidates(&self, node: &str, port: u16) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = self.of_port(port).collect();
        let prefers_here = match self.traffic_distribution {
            TrafficDistribution::Any | TrafficDistribution::PreferSameZone => false,
            TrafficDistribution::PreferSameNode => all.iter().any(|endpoint| endpoint.is_on(node)),
            TrafficDistribution::OnlySameNode => true,
        };
        if prefers_here {
            all.retain(|endpoint| endpoint.is_on(node));
        }
        all
    }
}

/// A TCP port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; empty if it has none. Endpoints refer to it.
    pub name: Arc<str>,
    /// The port of the VIP.
    pub port: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// What is spoken at a port, as far as a waypoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppProtocol {
    /// Nothing is said of it: what a client says first tells.
    #[default]
    Unknown,
    /// HTTP/1.1, or HTTP/2 where the client begins with that.
    Http,
    /// HTTP/2 without TLS (gRPC too), whatever the client speaks.
    Http2,
    /// Bytes that are nobody's business.
    Tcp,
}

/// One address and port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The service port's name that this endpoint serves.
    pub port_name: Arc<str>,
    /// Where it listens (the target port, resolved).
    pub address: IpAddr,
    /// The target port.
    pub port: u16,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `zone`, or its node's where a manifest has no EndpointSlice.
    pub zone: Option<Arc<str>>,
}

impl Endpoint {
    /// Address and port.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Whether it is on that node.
    #[must_use]
    pub fn is_on(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }
}

/// Which endpoints a service prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficDistribution {
    /// All alike.
    #[default]
    Any,
    /// `trafficDistribution: PreferSameNode`: this node's if there are any.
    PreferSameNode,
    /// `trafficDistribution: PreferSameZone`, or `PreferClose` as it was called: this zone's if there are any.
    PreferSameZone,
    /// `internalTrafficPolicy: Local`: this node's, or none.
    OnlySameNode,
}
