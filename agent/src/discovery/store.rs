//! The store: indexes over what is known, updated by delta, read without locks or waiting.
//!
//! A [`Snapshot`] never changes: a reader takes one and decides a whole connection on it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use imbl::{HashMap, HashSet};

use super::model::{ObjectName, Service, Workload, WorkloadUid};
use crate::policy::PolicySet;

/// Everything known at one moment. Cloning costs the same at any size.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    services: HashMap<ObjectName, Arc<Service>>,
    by_vip: HashMap<IpAddr, HashSet<ObjectName>>,
    policies: PolicySet,
    generation: u64,
}

impl Snapshot {
    /// Counts the changes since the start: two snapshots with the same number are the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The workload that has this address now.
    #[must_use]
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// The workload with this uid.
    #[must_use]
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The service whose VIP and port this is.
    #[must_use]
    pub fn service_by_vip(&self, destination: SocketAddr) -> Option<&Arc<Service>> {
        let names = self.by_vip.get(&destination.ip())?;
        names
            .iter()
            .filter_map(|name| self.services.get(name))
            .find(|service| {
                service
                    .ports
                    .iter()
                    .any(|port| port.port == destination.port())
            })
    }

    /// Every workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// Every service, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The policies, ready to be evaluated.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }
}

/// Holds the current snapshot. One writer (the source), any number of readers.
#[derive(Debug, Default)]
pub struct Store {
    current: ArcSwap<Snapshot>,
}

impl Store {
    /// The current state. Never waits.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
