//! Which interface belongs to which pod: pure, from what the kernel says and what the store knows.
//!
//! A binding is evidence of identity, so it's made once and kept while both ends live, and doubt
//! binds nothing: an interface that two pods could own, or a pod that two interfaces could be,
//! stays unbound (its connections wait) until the doubt is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::discovery::model::{ObjectName, Workload, WorkloadUid};

/// Where an address was seen. A host route is the node's own statement, and so are entries that it
/// has set for a bridge; what an interface in the pod's namespace has may be the pod's doing. What
/// a bridge or the node has learned from packets is no evidence at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// An address of the veth's other end.
    PodNamespace,
    /// What the node has set in a bridge's forwarding table and among its neighbours.
    Forwarding,
    /// A host route of the node through the veth.
    HostRoute,
}

/// Says that an address belongs behind an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The interface of the node.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Who says so.
    pub evidence: Evidence,
}

/// A pod that more than one interface could be, or that shares its interface with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The pod.
    pub workload: ObjectName,
    /// The interfaces that claim one of its addresses.
    pub interfaces: Vec<u32>,
}

/// Interfaces with their pods.
pub type Bindings = BTreeMap<u32, WorkloadUid>;

/// Binds what can be bound without doubt.
///
/// `pods` are this node's pods, `interfaces` the pod interfaces that exist. Bindings of `before`
/// whose pod and interface both still exist are kept.
#[must_use]
pub fn bind(
    before: &Bindings,
    interfaces: &BTreeSet<u32>,
    claims: &[Claim],
    pods: &[Arc<Workload>],
) -> (Bindings, Vec<Conflict>) {
    let alive: HashMap<&WorkloadUid, &Arc<Workload>> =
        pods.iter().map(|pod| (&pod.uid, pod)).collect();
    let mut bindings: Bindings = before
        .iter()
        .filter(|(interface, uid)| interfaces.contains(interface) && alive.contains_key(uid))
        .map(|(interface, uid)| (*interface, uid.clone()))
        .collect();
    let bound: BTreeSet<WorkloadUid> = bindings.values().cloned().collect();

    let mut candidates: Vec<(&Arc<Workload>, Vec<u32>)> = Vec::new();
    for pod in pods.iter().filter(|pod| !bound.contains(&pod.uid)) {
        let free = claims.iter().filter(|claim| {
            interfaces.contains(&claim.interface)
                && !bindings.contains_key(&claim.interface)
                && pod.addresses.contains(&claim.address)
        });
        let free: Vec<&Claim> = free.collect();
        let Some(strongest) = free.iter().map(|claim| claim.evidence).max() else {
            continue;
        };
        let of_strongest = free.iter().filter(|claim| claim.evidence == strongest);
        let set: BTreeSet<u32> = of_strongest.map(|claim| claim.interface).collect();
        candidates.push((pod, set.into_iter().collect()));
    }

    let mut conflicts = Vec::new();
    for (pod, interfaces) in &candidates {
        let shared = candidates.iter().any(|(other, theirs)| {
            other.uid != pod.uid
                && theirs
                    .iter()
                    .any(|interface| interfaces.contains(interface))
        });
        match interfaces.as_slice() {
            [interface] if !shared => {
                bindings.insert(*interface, pod.uid.clone());
            }
            _ => conflicts.push(Conflict {
                workload: pod.name.clone(),
                interfaces: interfaces.clone(),
            }),
        }
    }
    (bindings, conflicts)
}

#[cfg(test)]
pub(super) mod tests;
