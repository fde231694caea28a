//! What a waypoint is asked for, and where that is. Pure.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    discovery::{
        model::{AppProtocol, Endpoint, ObjectName, Service, Tunnel, Workload},
        store::Snapshot,
    },
    hbone::Authority,
    proxy::{
        error::Error,
        route::{self, Route},
    },
};

/// What a stream is for, of what this waypoint serves.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// One of a service's ports.
    Service(Arc<Service>, u16),
    /// A workload's own address.
    Workload(SocketAddr),
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// The endpoint.
    pub(super) address: SocketAddr,
    /// How to get there. [`Route::Local`] is by the waypoint's own pod, whose agent knows it by its interface.
    pub(super) route: Route,
}

/// Who is asked.
pub(super) struct Asker<'a> {
    /// The waypoint.
    pub(super) gateway: &'a ObjectName,
    /// The end of services' DNS names.
    pub(super) cluster_domain: &'a str,
}

impl Asker<'_> {
    /// Finds out what a stream is for.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotOurs`].
    pub(super) fn asked(&self, snapshot: &Snapshot, authority: &Authority) -> Result<Asked, Error> {
        let unknown = || Error::Unknown(authority.clone());
        match authority {
            Authority::Host { host, port } => {
                let name = service_name(host, self.cluster_domain).ok_or_else(unknown)?;
                let service = snapshot.service(&name).ok_or_else(unknown)?;
                if !service.ports.iter().any(|served| served.port == *port) {
                    return Err(unknown());
                }
                let is_ours = snapshot.waypoint_of_service(service);
                self.check(authority, is_ours.map(|it| &it.name))?;
                Ok(Asked::Service(service.clone(), *port))
            }
            Authority::Address(address) => {
                let workload = snapshot.workload_by_address(address.ip());
                let is_ours = snapshot.waypoint_of_workload(workload.ok_or_else(unknown)?);
                self.check(authority, is_ours.map(|it| &it.name))?;
                Ok(Asked::Workload(*address))
            }
        }
    }

    fn check(&self, authority: &Authority, waypoint: Option<&ObjectName>) -> Result<(), Error> {
        if waypoint == Some(self.gateway) {
            return Ok(());
        }
        Err(Error::NotOurs {
            authority: authority.clone(),
            waypoint: self.gateway.clone(),
        })
    }
}

impl Asked {
    /// The service, if it is one.
    pub(super) fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Service(service, _) => Some(service),
            Self::Workload(_) => None,
        }
    }

    /// An address of it, for those who look: the service's own, if it has one.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Service(service, port) => {
                let vip = service.vips.first().copied();
                SocketAddr::new(vip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), *port)
            }
            Self::Workload(address) => *address,
        }
    }

    /// What is spoken there, as far as somebody has said it.
    pub(super) fn protocol(&self) -> AppProtocol {
        match self {
            Self::Service(service, port) => service.protocol(*port),
            Self::Workload(_) => AppProtocol::Unknown,
        }
    }

    /// Where a connection ends: at one of the endpoints, if it is a service. `node` is the client's, for
    /// services that ask for endpoints there; empty if it isn't known.
    ///
    /// # Errors
    /// [`Error::NoRoute`].
    pub(super) fn end(
        &self,
        node: &str,
        choose: impl Fn(&[&Endpoint]) -> usize,
    ) -> Result<SocketAddr, Error> {
        Ok(match self {
            Self::Service(service, port) => route::endpoint(service, node, *port, choose)?,
            Self::Workload(address) => *address,
        })
    }
}

impl Target {
    /// The way to an address, for a waypoint whose connections the agent of `here` takes; empty if none does.
    pub(super) fn at(snapshot: &Snapshot, here: &str, address: SocketAddr) -> Self {
        let workload: Option<Arc<Workload>> = snapshot.workload_by_address(address.ip()).cloned();
        // Another implementation on the node is spoken to over HBONE. A pod that isn't scheduled has an empty node, and
        // no address.
        let by_agent = |pod: &Workload| pod.tunnel == Tunnel::NodeAgent;
        let here = match workload.as_deref().is_some_and(by_agent) {
            true => here,
            false => "",
        };
        Self {
            address,
            route: route::direct(workload, here, address.ip()),
        }
    }

    /// Whether it is an enrolled pod of the waypoint's own node.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.route, Route::Local(_))
    }

    /// The enrolled pod that is reached as such.
    pub(super) fn enrolled(&self) -> Option<&Arc<Workload>> {
        match &self.route {
            Route::Local(workload) | Route::Tunnel { workload, .. } => Some(workload),
            Route::Waypoint { .. } | Route::Plain(_) => None,
        }
    }
}

/// `name.namespace.svc.domain`.
fn service_name(host: &str, cluster_domain: &str) -> Option<ObjectName> {
    let rest = host.strip_suffix(cluster_domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = rest.split_once('.')?;
    Some(ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::testing;

    #[test]
    fn a_pod_of_the_same_node_is_reached_there_if_its_agent_takes_the_connection() {
        let pod = |name: &str, address: &str, mesh: &str, tunnel: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {name}, namespace: shop, labels: {{ambit.dev/mesh: {mesh}}}, \
                 annotations: {{{tunnel}}}}}\n\
                 spec: {{nodeName: b}}\nstatus: {{podIP: {address}, hostIP: 10.78.0.2}}\n"
            )
        };
        let snapshot = testing::snapshot(
            &[
                pod("far", "10.77.2.1", "enabled", ""),
                pod("theirs", "10.77.2.2", "enabled", "ambit.dev/tunnel: pod"),
                pod("plain", "10.77.2.3", "disabled", ""),
            ]
            .join("---\n"),
        );
        for (here, address, expected) in [
            ("b", "10.77.2.1", "here"),
            ("a", "10.77.2.1", "10.78.0.2:15008"),
            // No agent takes what the waypoint opens.
            ("", "10.77.2.1", "10.78.0.2:15008"),
            // Another implementation is there.
            ("b", "10.77.2.2", "10.77.2.2:15008"),
            ("b", "10.77.2.3", "plain"),
            ("b", "192.0.2.1", "plain"),
        ] {
            let address = SocketAddr::new(address.parse().unwrap(), 80);
            let target = Target::at(&snapshot, here, address);
            let way = match &target.route {
                Route::Local(_) => "here".to_owned(),
                Route::Tunnel { via, .. } => via.to_string(),
                Route::Plain(_) | Route::Waypoint { .. } => "plain".to_owned(),
            };
            assert_eq!(way, expected, "{here:?} {address}");
            assert_eq!(target.is_here(), expected == "here");
            assert_eq!(target.enrolled().is_some(), expected != "plain");
        }
    }
}
