//! What is kept of each Kubernetes object: checked, small, and not yet joined with the others.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use k8s_openapi::jiff::Timestamp;

use super::model::{
    Exclusions, ObjectName, Route, RouteKind, ServicePort, TrafficDistribution, TrafficPolicy,
    UseWaypoint, WaypointFor, Workload, WorkloadUid,
};
use crate::{
    identity::Identity,
    policy::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication},
};

/// The kinds of object that change what the mesh does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    Gateway,
    HTTPRoute,
    GRPCRoute,
    ReferenceGrant,
    TrafficPolicy,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
}

/// Names one object. The namespace is empty for kinds that have none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// `Pod shop/cart`, `Namespace shop`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.name.namespace {
            "" => write!(f, "{:?} {}", self.kind, self.name.name),
            _ => write!(f, "{:?} {}", self.kind, self.name),
        }
    }
}

/// One checked object.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each variant is the kind of that name")]
pub enum Object {
    Namespace(NamespaceFacts),
    Node(NodeFacts),
    Pod(Box<PodFacts>),
    Service(ServiceFacts),
    EndpointSlice(SliceFacts),
    Gateway(GatewayFacts),
    /// An HTTPRoute or GRPCRoute.
    Route(Box<Route>),
    ReferenceGrant(GrantFacts),
    TrafficPolicy(TrafficPolicy),
    AuthorizationPolicy(AuthorizationPolicy),
    PeerAuthentication(PeerAuthentication),
    RequestAuthentication(RequestAuthentication),
}

/// A namespace's defaults for its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// What its labels say of enrolment; `None` if nothing.
    pub enrolment: Option<bool>,
    /// What its annotations exclude.
    pub exclusions: Arc<Exclusions>,
    /// What its labels say of the waypoint of its pods and services.
    pub waypoint: UseWaypoint,
    /// The waypoint that its label makes, where there is no Gateway of the name.
    pub makes_waypoint: Option<WaypointFacts>,
}

/// What a Node object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `ambit.dev/tunnel: pod`: another HBONE implementation runs there.
    pub tunnel_to_pods: bool,
    /// `status.addresses` of type InternalIP.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
}

/// A pod by itself: its namespace and node have still to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// The workload as the pod alone describes it.
    pub workload: Workload,
    /// What its own labels say of enrolment; `None` if nothing.
    pub enrolment: Option<bool>,
    /// What its own labels say of its waypoint.
    pub waypoint: UseWaypoint,
    /// It has ended, or has been deleted and none of its containers runs: not a workload.
    pub ended: bool,
    /// `status.startTime`, else `metadata.creationTimestamp`: settles whose an address is.
    pub started: Option<Timestamp>,
    /// The TCP container ports that have a name, for named target ports.
    pub ports: Arc<[NamedPort]>,
}

/// A named TCP port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// The name.
    pub name: Arc<str>,
    /// The port.
    pub port: u16,
}

/// A Service without its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// Cluster and external addresses.
    pub vips: Vec<IpAddr>,
    /// The TCP ports, each with its target.
    pub ports: Vec<(ServicePort, TargetPort)>,
    /// Which endpoints are preferred.
    pub traffic_distribution: TrafficDistribution,
    /// `spec.selector`; `None` if there is none, so that its endpoints are somebody else's matter.
    pub selector: Option<BTreeMap<String, String>>,
    /// What its own labels say of its waypoint.
    pub waypoint: UseWaypoint,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Address families of its endpoints.
    pub families: Families,
}

/// Which address families a Service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether the address is of one of them.
    #[must_use]
    pub fn contain(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// `targetPort` of a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// The same number on every pod.
    Number(u16),
    /// The container port of that name, which may differ from pod to pod.
    Name(Arc<str>),
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// From its label `kubernetes.io/service-name`; `None` if it belongs to no service.
    pub service: Option<ObjectName>,
    /// Its TCP endpoints, one for each address and port; those that serve nobody left out.
    pub endpoints: Vec<Candidate>,
}

/// An endpoint that may serve, as far as readiness goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it listens and what for.
    pub endpoint: super::model::Endpoint,
    /// Ready; otherwise it is terminating but still serving: used where nothing is ready.
    pub ready: bool,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.gatewayClassName`.
    pub class: Arc<str>,
    /// `None` if it is of another class, and so somebody else's.
    pub waypoint: Option<WaypointFacts>,
}

/// A waypoint by itself: where it is has still to be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaypointFacts {
    /// Namespace and name of the Gateway.
    pub name: ObjectName,
    /// This life of it.
    pub uid: WorkloadUid,
    /// Its service account's.
    pub identity: Identity,
    /// What traffic goes through it.
    pub serves: WaypointFor,
    /// The node that it asks for, where waypoints run on nodes.
    pub node: Option<Arc<str>>,
    /// Its port there.
    pub port: u16,
}

/// A ReferenceGrant, as far as it allows routes to refer to Services of its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// Which routes may.
    pub from: Vec<GrantFrom>,
    /// To which Services; `None` to all of them.
    pub services: Vec<Option<Arc<str>>>,
}

/// The routes of one kind and namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFrom {
    /// Their kind.
    pub kind: RouteKind,
    /// Their namespace.
    pub namespace: Arc<str>,
}
