//! From the store to the maps of the whole mesh: who is enrolled, and what is a service.
//!
//! A map may be full. What it has no room for is captured all the same: the programs are told to
//! capture whatever enrolled pods open, and the agent, which knows everybody, decides. That costs
//! a detour for what isn't of the mesh, and lets nothing of the mesh pass in plaintext.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::maps::{self, Maps};
use crate::discovery::{
    model::{Service, Workload},
    store::{Snapshot, Update},
};

/// What maps of the mesh can do.
pub trait MeshMaps {
    /// Every entry that is there.
    fn entries(&self) -> Vec<Entry>;
    /// Adds or removes one. Both may have been done before.
    ///
    /// # Errors
    /// [`maps::Error`]; where there is no room, one that [says so](maps::Error::is_full).
    fn set(&mut self, entry: Entry, is_there: bool) -> Result<(), maps::Error>;
    /// Whether everything that enrolled pods open is captured, whatever entries say.
    ///
    /// # Errors
    /// [`maps::Error`].
    fn set_capture_all(&mut self, capture_all: bool) -> Result<(), maps::Error>;
}

/// An entry of one of the maps. Those of one map are neighbours in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// The address of an enrolled workload.
    Workload(IpAddr),
    /// VIP and port of a service.
    Service(SocketAddr),
}

/// How many entries the maps have no room for; for metrics.
#[derive(Debug, Clone, Default)]
pub struct LeftOut(Arc<AtomicUsize>);

impl LeftOut {
    /// The number of now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps the maps in line with the store.
#[derive(Debug, Default)]
pub struct Publisher {
    left_out: BTreeSet<Entry>,
    shown: LeftOut,
}

impl Publisher {
    /// A handle on how many entries are left out.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.shown.clone()
    }

    /// Makes the maps say what the snapshot says, whatever they said before. Returns its
    /// generation.
    ///
    /// # Errors
    /// A map that refused an entry for another reason than being full.
    pub fn publish_all(
        &mut self,
        maps: &mut impl MeshMaps,
        snapshot: &Snapshot,
    ) -> Result<u64, maps::Error> {
        let workloads = snapshot.workloads();
        let services = snapshot.services();
        let mut missing: HashSet<Entry> = workloads
            .flat_map(|workload| enrolled(workload))
            .chain(
                services
                    .flat_map(|service| frontends(service))
                    .map(Entry::Service),
            )
            .collect();
        for present in maps.entries() {
            // What is there already isn't written again: a system call each.
            if !missing.remove(&present) {
                maps.set(present, false)?;
            }
        }
        self.left_out.clear();
        for entry in missing {
            self.set(maps, entry, true)?;
        }
        self.settle(maps)?;
        // An earlier agent may have left it on.
        maps.set_capture_all(!self.left_out.is_empty())?;
        Ok(snapshot.generation())
    }

    /// Carries one update over: only what changed is written.
    ///
    /// # Errors
    /// A map that refused an entry for another reason than being full.
    pub fn publish(
        &mut self,
        maps: &mut impl MeshMaps,
        update: &Update,
    ) -> Result<(), maps::Error> {
        for change in &update.addresses {
            let holder = change.after.as_ref();
            let is_enrolled = holder.is_some_and(|workload| workload.is_enrolled());
            self.set(maps, Entry::Workload(change.address), is_enrolled)?;
        }
        for change in &update.services {
            let either = change.before.iter().chain(&change.after);
            for frontend in either.flat_map(|service| frontends(service)) {
                let is_there = update.snapshot.service_by_vip(frontend).is_some();
                self.set(maps, Entry::Service(frontend), is_there)?;
            }
        }
        self.settle(maps)
    }

    /// Notes what there is no room for.
    fn set(
        &mut self,
        maps: &mut impl MeshMaps,
        entry: Entry,
        is_there: bool,
    ) -> Result<(), maps::Error> {
        match maps.set(entry, is_there) {
            Err(error) if is_there && error.is_full() => {
                if self.left_out.is_empty() {
                    // At once: the entry's traffic must not pass meanwhile.
                    maps.set_capture_all(true)?;
                    tracing::error!(
                        "{error}; until there is room, all that enrolled pods open is captured"
                    );
                }
                self.left_out.insert(entry);
                Ok(())
            }
            result => {
                self.left_out.remove(&entry);
                result
            }
        }
    }

    /// Puts in what there is room for by now.
    fn settle(&mut self, maps: &mut impl MeshMaps) -> Result<(), maps::Error> {
        if self.left_out.is_empty() && self.shown.count() == 0 {
            return Ok(());
        }
        // Each map is at one end of the order: one refusal says that it is still full.
        for next in [BTreeSet::first, BTreeSet::last] {
            while let Some(entry) = next(&self.left_out).copied() {
                match maps.set(entry, true) {
                    Ok(()) => self.left_out.remove(&entry),
                    Err(error) if error.is_full() => break,
                    Err(error) => return Err(error),
                };
            }
        }
        self.shown.0.store(self.left_out.len(), Ordering::Relaxed);
        if self.left_out.is_empty() {
            maps.set_capture_all(false)?;
            tracing::info!("the eBPF maps have room again: only what is of the mesh is captured");
        }
        Ok(())
    }
}

impl MeshMaps for Maps {
    fn entries(&self) -> Vec<Entry> {
        let workloads = self.workloads().map(Entry::Workload);
        workloads
            .chain(self.services().map(Entry::Service))
            .collect()
    }

    fn set(&mut self, entry: Entry, is_there: bool) -> Result<(), maps::Error> {
        match entry {
            Entry::Workload(address) => self.set_workload(address, is_there),
            Entry::Service(frontend) => self.set_service(frontend, is_there),
        }
    }

    fn set_capture_all(&mut self, capture_all: bool) -> Result<(), maps::Error> {
        let mut configuration = self.configuration()?;
        configuration.capture_all = capture_all.into();
        self.set_configuration(configuration)
    }
}

fn enrolled(workload: &Workload) -> impl Iterator<Item = Entry> + '_ {
    let addresses = workload.addresses.iter().filter(|_| workload.is_enrolled());
    addresses.copied().map(Entry::Workload)
}

/// VIPs and ports of a service.
pub(super) fn frontends(service: &Service) -> impl Iterator<Item = SocketAddr> + '_ {
    service.vips.iter().flat_map(|vip| {
        let ports = service.ports.iter();
        ports.map(|port| SocketAddr::new(*vip, port.port))
    })
}

#[cfg(test)]
mod tests;
