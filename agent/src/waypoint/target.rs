//! What a waypoint is asked for, and where that is. Pure.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    discovery::{
        model::{AppProtocol, Endpoint, ObjectName, Service, Workload},
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
    /// How to get there: never [`Route::Local`], for nothing is local to a waypoint.
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

    /// Where a connection goes: to one of the endpoints, if it is a service. `node` is the client's, for
    /// services that ask for endpoints there; empty if it isn't known.
    ///
    /// # Errors
    /// [`Error::NoRoute`].
    pub(super) fn target(
        &self,
        snapshot: &Snapshot,
        node: &str,
        choose: impl Fn(&[&Endpoint]) -> usize,
    ) -> Result<Target, Error> {
        let address = match self {
            Self::Service(service, port) => route::endpoint(service, node, *port, choose)?,
            Self::Workload(address) => *address,
        };
        Ok(Target::at(snapshot, address))
    }
}

impl Target {
    /// The way to an address.
    pub(super) fn at(snapshot: &Snapshot, address: SocketAddr) -> Self {
        let workload: Option<Arc<Workload>> = snapshot.workload_by_address(address.ip()).cloned();
        Self {
            address,
            // A pod that isn't scheduled has an empty node, and no address.
            route: route::direct(workload, "", address.ip()),
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
