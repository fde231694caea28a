//! From the store to the maps of the whole mesh: who is enrolled, and what is a service.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::maps::{self, Maps};
use crate::discovery::{
    model::{Service, Workload},
    store::{Snapshot, Update},
};

/// Makes the maps say what the snapshot says, whatever they said before. Returns its generation.
///
/// # Errors
/// A map that refused an entry.
pub(super) fn publish_all(maps: &mut Maps, snapshot: &Snapshot) -> Result<u64, maps::Error> {
    let workloads: BTreeSet<IpAddr> = snapshot
        .workloads()
        .flat_map(|workload| enrolled_addresses(workload))
        .collect();
    let services: BTreeSet<SocketAddr> = snapshot
        .services()
        .flat_map(|service| frontends(service))
        .collect();
    for stale in maps
        .workloads()
        .into_iter()
        .filter(|address| !workloads.contains(address))
    {
        maps.set_workload(stale, false)?;
    }
    for stale in maps
        .services()
        .into_iter()
        .filter(|frontend| !services.contains(frontend))
    {
        maps.set_service(stale, false)?;
    }
    for address in workloads {
        maps.set_workload(address, true)?;
    }
    for frontend in services {
        maps.set_service(frontend, true)?;
    }
    Ok(snapshot.generation())
}

/// Carries one update over: only what changed is written.
///
/// # Errors
/// A map that refused an entry.
pub(super) fn publish(maps: &mut Maps, update: &Update) -> Result<(), maps::Error> {
    for change in &update.addresses {
        let is_enrolled = change
            .after
            .as_ref()
            .is_some_and(|workload| workload.is_enrolled());
        maps.set_workload(change.address, is_enrolled)?;
    }
    for change in &update.services {
        let either = change.before.iter().chain(&change.after);
        for frontend in either.flat_map(|service| frontends(service)) {
            maps.set_service(frontend, update.snapshot.service_by_vip(frontend).is_some())?;
        }
    }
    Ok(())
}

fn enrolled_addresses(workload: &Workload) -> Vec<IpAddr> {
    if workload.is_enrolled() {
        workload.addresses.clone()
    } else {
        Vec::new()
    }
}

fn frontends(service: &Service) -> Vec<SocketAddr> {
    let ports = || service.ports.iter().map(|port| port.port);
    service
        .vips
        .iter()
        .flat_map(|vip| ports().map(|port| SocketAddr::new(*vip, port)))
        .collect()
}
