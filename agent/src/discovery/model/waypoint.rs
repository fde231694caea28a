//! Waypoints: proxies that traffic to a service, or to a workload, goes through on request.

use std::{fmt, sync::Arc};

use super::{Endpoint, ObjectName, WorkloadUid};
use crate::identity::Identity;

/// The class of Gateways that are waypoints of ours.
pub const WAYPOINT_CLASS: &str = "ambit-waypoint";
/// The label by which the pods of a Gateway name its class (GEP-1762).
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";

/// A waypoint: a Gateway of [`WAYPOINT_CLASS`], or what the label of a namespace alone makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waypoint {
    /// Namespace and name of the Gateway, whether it exists or follows from a namespace's label.
    pub name: ObjectName,
    /// This life of the Gateway: one of the same name later has another.
    pub uid: WorkloadUid,
    /// Who it is: the service account of its namespace that has its name.
    pub identity: Identity,
    /// What traffic goes through it.
    pub serves: WaypointFor,
    /// Where it runs.
    pub place: WaypointPlace,
    /// Where it takes HBONE; empty while none is ready.
    pub endpoints: Arc<[Endpoint]>,
}

/// `istio.io/waypoint-for`: traffic of which destinations goes through a waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaypointFor {
    /// What is addressed to a Service's VIP.
    pub services: bool,
    /// What is addressed to a pod.
    pub workloads: bool,
}

impl WaypointFor {
    /// `service`, which is what a Gateway without the label says.
    pub const SERVICES: Self = Self {
        services: true,
        workloads: false,
    };

    /// As the label says it; `None` if it can't say that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (services, workloads) = match text {
            "service" => (true, false),
            "workload" => (false, true),
            "all" => (true, true),
            "none" => (false, false),
            _ => return None,
        };
        Some(Self {
            services,
            workloads,
        })
    }
}

/// Where a waypoint runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaypointPlace {
    /// In pods behind the Service of its name.
    Pods,
    /// As a child of the agent of a node; `None` while no node is known.
    Node(Option<Arc<str>>),
}

/// What an object says of its waypoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UseWaypoint {
    /// Nothing: its namespace decides.
    #[default]
    Unset,
    /// `none`.
    Off,
    /// That one.
    Named(Arc<ObjectName>),
}

impl UseWaypoint {
    /// The Gateway that it names.
    #[must_use]
    pub fn named(&self) -> Option<&Arc<ObjectName>> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unset | Self::Off => None,
        }
    }

    /// What comes of it, where the namespace says `inherited`.
    #[must_use]
    pub fn or(&self, inherited: &Self) -> Option<Arc<ObjectName>> {
        match self {
            Self::Unset => inherited.named().cloned(),
            Self::Off => None,
            Self::Named(name) => Some(Arc::clone(name)),
        }
    }
}

impl fmt::Display for Waypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
