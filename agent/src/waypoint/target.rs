//! Where a stream goes that a waypoint is asked for. Pure.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    discovery::{
        model::{Endpoint, ObjectName, Service, Workload},
        store::Snapshot,
    },
    hbone::Authority,
    proxy::{
        error::Error,
        route::{self, Route},
    },
};

/// What was decided for a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// The service that was asked for.
    pub(super) service: Option<Arc<Service>>,
    /// The endpoint.
    pub(super) address: SocketAddr,
    /// How to get there: never [`Route::Local`], for nothing is local to a waypoint.
    pub(super) route: Route,
}

/// Who decides, and for whom.
pub(super) struct Asked<'a> {
    /// The waypoint.
    pub(super) gateway: &'a ObjectName,
    /// The end of services' DNS names.
    pub(super) cluster_domain: &'a str,
    /// The client's node, for services that ask for endpoints there; empty if it isn't known.
    pub(super) node: &'a str,
}

/// Decides where a stream goes: to an endpoint of a service, or to a workload, that uses this
/// waypoint.
///
/// # Errors
/// [`Error::Unknown`], [`Error::NotOurs`], [`Error::NoRoute`].
pub(super) fn target(
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    authority: &Authority,
    choose: impl Fn(&[&Endpoint]) -> usize,
) -> Result<Target, Error> {
    let unknown = || Error::Unknown(authority.clone());
    let (service, address) = match authority {
        Authority::Host { host, port } => {
            let name = service_name(host, asked.cluster_domain).ok_or_else(unknown)?;
            let service = snapshot.service(&name).ok_or_else(unknown)?;
            if !service.ports.iter().any(|served| served.port == *port) {
                return Err(unknown());
            }
            let is_ours = snapshot.waypoint_of_service(service);
            check(asked, authority, is_ours.map(|it| &it.name))?;
            let address = route::endpoint(service, asked.node, *port, choose)?;
            (Some(service.clone()), address)
        }
        Authority::Address(address) => {
            let workload = snapshot.workload_by_address(address.ip());
            let is_ours = snapshot.waypoint_of_workload(workload.ok_or_else(unknown)?);
            check(asked, authority, is_ours.map(|it| &it.name))?;
            (None, *address)
        }
    };
    let workload: Option<Arc<Workload>> = snapshot.workload_by_address(address.ip()).cloned();
    Ok(Target {
        service,
        address,
        // A pod that isn't scheduled has an empty node, and no address.
        route: route::direct(workload, "", address.ip()),
    })
}

fn check(
    asked: &Asked<'_>,
    authority: &Authority,
    waypoint: Option<&ObjectName>,
) -> Result<(), Error> {
    if waypoint == Some(asked.gateway) {
        return Ok(());
    }
    Err(Error::NotOurs {
        authority: authority.clone(),
        waypoint: asked.gateway.clone(),
    })
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
