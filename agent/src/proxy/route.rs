//! Where a captured connection goes. Pure: a snapshot and an original destination in, a route out.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::discovery::{
    model::{Endpoint, Service, TrafficDistribution, Tunnel, Workload},
    store::Snapshot,
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
    /// Not enrolled: as the pod itself would have connected.
    Plain(Option<Arc<Workload>>),
}

impl Route {
    /// The workload at the other end, if the mesh knows one.
    #[must_use]
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Local(workload) | Self::Tunnel { workload, .. } => Some(workload),
            Self::Plain(workload) => workload.as_ref(),
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

/// Decides where a connection of a pod on `node` to `original` goes.
///
/// `choose` picks one of several endpoints by its index; it is called with at least one.
///
/// # Errors
/// [`NoRoute`].
pub fn route(
    snapshot: &Snapshot,
    node: &str,
    original: SocketAddr,
    choose: impl FnOnce(&[&Endpoint]) -> usize,
) -> Result<Request, NoRoute> {
    let service = snapshot.service_by_vip(original);
    let address = match service {
        Some(service) => endpoint(service, node, original, choose)?,
        None => original,
    };
    let workload = snapshot.workload_by_address(address.ip()).cloned();
    let route = match workload {
        Some(workload) if workload.is_enrolled() && *workload.node == *node => {
            Route::Local(workload)
        }
        Some(workload) if workload.is_enrolled() => {
            let via = SocketAddr::new(tunnel_address(&workload, address.ip()), TUNNEL_PORT);
            Route::Tunnel { workload, via }
        }
        other => Route::Plain(other),
    };
    Ok(Request {
        service: service.cloned(),
        address,
        route,
    })
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

fn endpoint(
    service: &Service,
    node: &str,
    original: SocketAddr,
    choose: impl FnOnce(&[&Endpoint]) -> usize,
) -> Result<SocketAddr, NoRoute> {
    let candidates = service.candidates(node, original.port());
    if candidates.is_empty() {
        let (name, port) = (service.name.to_string(), original.port());
        return Err(match service.traffic_distribution {
            TrafficDistribution::OnlySameNode => NoRoute::NoLocalEndpoint {
                service: name,
                port,
            },
            TrafficDistribution::Any | TrafficDistribution::PreferSameNode => NoRoute::NoEndpoint {
                service: name,
                port,
            },
        });
    }
    let chosen = candidates[choose(&candidates).min(candidates.len() - 1)];
    Ok(SocketAddr::new(chosen.address, chosen.port))
}

#[cfg(test)]
mod tests;
