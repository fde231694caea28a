//! Where a captured connection goes. Pure: a snapshot and an original destination in, a route out.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    discovery::{
        model::{Endpoint, ObjectName, Service, TrafficDistribution, Tunnel, Waypoint, Workload},
        store::Snapshot,
    },
    identity::Identity,
};

/// Port of HBONE on nodes and pods.
pub const TUNNEL_PORT: u16 = 15008;

/// What was decided for a connection that a pod opens.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The service whose VIP was dialled.
    pub service: Option<Arc<Service>>,
    /// Where the server is: the endpoint, behind any service.
    pub address: SocketAddr,
    /// How to get there.
    pub route: Route,
    /// The waypoint that it should go through.
    pub waypoint: Option<Arc<Waypoint>>,
}

impl Request {
    /// As it was addressed, past services and waypoints: a waypoint's own way on.
    #[must_use]
    pub fn direct(snapshot: &Snapshot, node: &str, address: SocketAddr) -> Self {
        let workload = snapshot.workload_by_address(address.ip()).cloned();
        Self {
            service: None,
            address,
            route: direct(workload, node, address.ip()),
            waypoint: None,
        }
    }

    /// Whether it goes through its waypoint.
    #[must_use]
    pub fn is_by_waypoint(&self) -> bool {
        matches!(self.route, Route::Waypoint { .. })
    }
}

/// The way to a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// An enrolled pod of this node.
    Local(Arc<Workload>),
    /// An enrolled pod elsewhere, through a tunnel to `via`.
    Tunnel {
        /// The pod.
        workload: Arc<Workload>,
        /// The agent of its node, or the pod itself.
        via: SocketAddr,
    },
    /// To a waypoint, which finds the way from there.
    Waypoint {
        /// The waypoint.
        waypoint: Arc<Waypoint>,
        /// Where it takes HBONE.
        via: SocketAddr,
        /// The pod that was addressed; `None` if it was a service.
        workload: Option<Arc<Workload>>,
    },
    /// Not enrolled: as the pod itself would have connected.
    Plain(Option<Arc<Workload>>),
}

impl Route {
    /// The workload at the other end, if the mesh knows one.
    #[must_use]
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Local(workload) | Self::Tunnel { workload, .. } => Some(workload),
            Self::Plain(workload) | Self::Waypoint { workload, .. } => workload.as_ref(),
        }
    }
}

/// What becomes of a connection whose waypoint isn't ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingWaypoint {
    /// It is refused.
    Deny,
    /// It goes without.
    Allow,
}

impl MissingWaypoint {
    /// As metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nobody serves the port.
    #[error("service {service} has no ready endpoint for port {port}")]
    NoEndpoint {
        /// The service.
        service: String,
        /// The service port.
        port: u16,
    },
    /// Nothing is to go there but through the waypoint.
    #[error(
        "no endpoint of waypoint {waypoint} is ready (--waypoint-missing=allow would send connections \
         without it)"
    )]
    NoWaypoint {
        /// The waypoint.
        waypoint: ObjectName,
    },
    /// `internalTrafficPolicy: Local`, and nobody serves it here.
    #[error(
        "service {service} asks for endpoints on this node only (internalTrafficPolicy: Local), \
         and none is ready here for port {port}"
    )]
    NoLocalEndpoint {
        /// The service.
        service: String,
        /// The service port.
        port: u16,
    },
}

/// Who asks for a way.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its node.
    pub node: &'a str,
    /// Its identity.
    pub identity: &'a Identity,
    /// What it gets where a waypoint isn't ready.
    pub missing: MissingWaypoint,
    /// Where its waypoint was found to be out of reach.
    pub out_of_reach: &'a [SocketAddr],
}

/// Decides where a connection of a pod to `original` goes.
///
/// `choose` picks one of several endpoints by its index; it is called with at least one.
///
/// # Errors
/// [`NoRoute`].
pub fn route(
    snapshot: &Snapshot,
    client: &Client<'_>,
    original: SocketAddr,
    choose: impl Fn(&[&Endpoint]) -> usize,
) -> Result<Request, NoRoute> {
    let service = snapshot.service_by_vip(original).cloned();
    let of_service = waypoint_for(snapshot, client.identity, service.as_deref(), None);
    if let Some(waypoint) = of_service
        && let Some(route) = to_waypoint(waypoint, None, original, client, &choose)?
    {
        return Ok(Request {
            waypoint: Some(waypoint.clone()),
            service,
            address: original,
            route,
        });
    }
    let address = match &service {
        Some(service) => endpoint(service, client.node, original.port(), &choose)?,
        None => original,
    };
    let workload = snapshot.workload_by_address(address.ip()).cloned();
    let waypoint = of_service
        .or_else(|| waypoint_for(snapshot, client.identity, None, workload.as_deref()))
        .cloned();
    if of_service.is_none()
        && let Some(waypoint) = &waypoint
        && let Some(route) = to_waypoint(waypoint, workload.as_ref(), address, client, &choose)?
    {
        return Ok(Request {
            waypoint: Some(waypoint.clone()),
            service,
            address,
            route,
        });
    }
    Ok(Request {
        service,
        address,
        route: direct(workload, client.node, address.ip()),
        waypoint,
    })
}

/// The waypoint that a client's connection has to go through: that of the service which it is
/// addressed to, or else that of the enrolled workload which it ends at. A waypoint that stands before the
/// workload goes on directly.
#[must_use]
pub fn waypoint_for<'a>(
    snapshot: &'a Snapshot,
    client: &Identity,
    service: Option<&Service>,
    workload: Option<&Workload>,
) -> Option<&'a Arc<Waypoint>> {
    let enrolled = workload.filter(|workload| workload.is_enrolled());
    service
        .and_then(|service| snapshot.waypoint_of_service(service))
        .or_else(|| snapshot.waypoint_of_workload(enrolled?))
        .filter(|waypoint| {
            let is_before = |workload| snapshot.waypoint_before(client, workload).is_some();
            waypoint.identity != *client && !enrolled.is_some_and(is_before)
        })
}

/// The way to a workload that is found at an address, from a node.
#[must_use]
pub fn direct(workload: Option<Arc<Workload>>, node: &str, address: IpAddr) -> Route {
    match workload {
        Some(workload) if workload.is_enrolled() && *workload.node == *node => {
            Route::Local(workload)
        }
        Some(workload) if workload.is_enrolled() => {
            let via = SocketAddr::new(tunnel_address(&workload, address), TUNNEL_PORT);
            Route::Tunnel { workload, via }
        }
        other => Route::Plain(other),
    }
}

/// The way by a waypoint; `None` if none is ready, and it may be left out then. Of a dual-stack node's
/// addresses those of the destination's family are preferred.
fn to_waypoint(
    waypoint: &Arc<Waypoint>,
    workload: Option<&Arc<Workload>>,
    destination: SocketAddr,
    client: &Client<'_>,
    choose: impl Fn(&[&Endpoint]) -> usize,
) -> Result<Option<Route>, NoRoute> {
    let at = |endpoint: &Endpoint| SocketAddr::new(endpoint.address, endpoint.port);
    let is_untried = |endpoint: &&Endpoint| !client.out_of_reach.contains(&at(endpoint));
    let is_same_family = |endpoint: &&Endpoint| endpoint.address.is_ipv4() == destination.is_ipv4();
    let untried = || waypoint.endpoints.iter().filter(is_untried);
    let mut ready: Vec<&Endpoint> = untried().filter(is_same_family).collect();
    if ready.is_empty() {
        ready.extend(untried());
    }
    if !ready.is_empty() {
        let chosen = ready[choose(&ready).min(ready.len() - 1)];
        return Ok(Some(Route::Waypoint {
            waypoint: waypoint.clone(),
            via: at(chosen),
            workload: workload.cloned(),
        }));
    }
    match client.missing {
        MissingWaypoint::Allow => Ok(None),
        MissingWaypoint::Deny => Err(NoRoute::NoWaypoint {
            waypoint: waypoint.name.clone(),
        }),
    }
}

/// The node's address of the same family as the pod's where there is one: a dual-stack node may
/// be reachable by one family only from here.
fn tunnel_address(workload: &Workload, pod: IpAddr) -> IpAddr {
    match workload.tunnel {
        Tunnel::PodAddress => pod,
        Tunnel::NodeAgent => {
            let same_family = workload
                .node_addresses
                .iter()
                .find(|node| node.is_ipv4() == pod.is_ipv4());
            same_family
                .or(workload.node_addresses.first())
                .copied()
                .unwrap_or(pod)
        }
    }
}

/// Picks an endpoint for a port of a service, for a client on `node`.
///
/// # Errors
/// [`NoRoute`].
pub fn endpoint(
    service: &Service,
    node: &str,
    port: u16,
    choose: impl Fn(&[&Endpoint]) -> usize,
) -> Result<SocketAddr, NoRoute> {
    let candidates = service.candidates(node, port);
    if candidates.is_empty() {
        let service_name = service.name.to_string();
        return Err(match service.traffic_distribution {
            TrafficDistribution::OnlySameNode => NoRoute::NoLocalEndpoint {
                service: service_name,
                port,
            },
            TrafficDistribution::Any
            | TrafficDistribution::PreferSameNode
            | TrafficDistribution::PreferSameZone => NoRoute::NoEndpoint {
                service: service_name,
                port,
            },
        });
    }
    let chosen = candidates[choose(&candidates).min(candidates.len() - 1)];
    Ok(SocketAddr::new(chosen.address, chosen.port))
}

#[cfg(test)]
mod tests;
