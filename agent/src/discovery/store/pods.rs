//! Pods joined with their namespaces and nodes, and who claims which address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;

use crate::discovery::{
    facts::{NamedPort, NamespaceFacts, PodFacts},
    model::{Enrolment, Exclusions, ObjectName, Tunnel, UseWaypoint, Workload, WorkloadUid},
    reduce::derived_uid,
};

/// Pods that were looked at, with their workloads before the first look.
pub(super) type Before = BTreeMap<ObjectName, Option<Arc<Workload>>>;

/// All pods that haven't ended.
#[derive(Debug, Default)]
pub(super) struct PodIndex {
    pods: HashMap<ObjectName, Pod>,
    by_namespace: BTreeMap<Arc<str>, BTreeSet<ObjectName>>,
    by_node: BTreeMap<Arc<str>, BTreeSet<ObjectName>>,
    by_uid: HashMap<WorkloadUid, ObjectName>,
    /// Nearly always of one pod: a set for each address would be a third of all memory.
    claims: HashMap<IpAddr, Vec<ObjectName>>,
    namespaces: HashMap<Arc<str>, NamespaceFacts>,
    tunnel_to_pods: HashSet<Arc<str>>,
    arrivals: u64,
}

/// A pod with its workload, and what the workload doesn't show of the pod's own wishes.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) workload: Arc<Workload>,
    pub(super) ports: Arc<[NamedPort]>,
    enrolment: Option<bool>,
    exclusions: Arc<Exclusions>,
    tunnel: Tunnel,
    waypoint: UseWaypoint,
    started: Option<Timestamp>,
    /// In which order the store saw the lives of pods begin.
    arrival: u64,
}

impl PodIndex {
    pub(super) fn get(&self, name: &ObjectName) -> Option<&Pod> {
        self.pods.get(name)
    }

    pub(super) fn workload(&self, name: &ObjectName) -> Option<&Arc<Workload>> {
        self.pods.get(name).map(|pod| &pod.workload)
    }

    pub(super) fn enrols(&self, namespace: &str) -> bool {
        let facts = self.namespaces.get(namespace);
        facts.is_some_and(|facts| facts.enrolment == Some(true))
    }

    pub(super) fn asks_for(&self, pod: &ObjectName) -> bool {
        let own = self.pods.get(pod).and_then(|pod| pod.enrolment);
        own.unwrap_or_else(|| self.enrols(&pod.namespace))
    }

    /// Every node that has pods, with the addresses that these tell of it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &[IpAddr])> {
        let known = self.by_node.iter().filter(|(node, _)| !node.is_empty());
        known.map(|(node, pods)| {
            let mut pods = pods.iter().filter_map(|name| self.workload(name));
            let told = pods.find(|pod| !pod.node_addresses.is_empty());
            (node, told.map_or(&[][..], |pod| &pod.node_addresses))
        })
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let names = self.by_namespace.get(namespace).into_iter().flatten();
        names.filter_map(|name| self.pods.get(name))
    }

    /// The pods that claim an address; the first has it. That is one that isn't being deleted
    /// rather than one that is, then the one that started last, then the one seen last.
    pub(super) fn claimants(&self, address: IpAddr) -> Vec<ObjectName> {
        let claims = self.claims.get(&address).into_iter().flatten();
        let mut pods: Vec<_> = claims.filter_map(|name| self.pods.get(name)).collect();
        pods.sort_by_key(|pod| {
            std::cmp::Reverse((!pod.workload.terminating, pod.started, pod.arrival))
        });
        pods.into_iter()
            .map(|pod| pod.workload.name.clone())
            .collect()
    }

    pub(super) fn insert(&mut self, facts: PodFacts, before: &mut Before) {
        let mut workload = facts.workload;
        let name = workload.name.clone();
        let old = self.take(&name, before);
        if facts.ended {
            return;
        }
        if let Some(holder) = self.by_uid.get(&workload.uid) {
            tracing::warn!(
                pod = %name,
                uid = %workload.uid,
                %holder,
                "two pods have the same metadata.uid: the second is known by its name instead"
            );
            workload.uid = derived_uid(&name, &workload.addresses);
        }
        let arrival = match &old {
            Some(old) if old.workload.uid == workload.uid => old.arrival,
            _ => {
                self.arrivals += 1;
                self.arrivals
            }
        };
        let mut pod = Pod {
            ports: facts.ports,
            enrolment: facts.enrolment,
            exclusions: Arc::clone(&workload.exclusions),
            tunnel: workload.tunnel,
            waypoint: facts.waypoint,
            started: facts.started,
            arrival,
            workload: Arc::new(workload),
        };
        self.join(&mut pod);
        if let Some(old) = old.filter(|old| old.workload == pod.workload) {
            pod.workload = old.workload;
        }
        self.put(name, pod);
    }

    pub(super) fn remove(&mut self, name: &ObjectName, before: &mut Before) {
        self.take(name, before);
    }

    pub(super) fn insert_namespace(&mut self, facts: NamespaceFacts, before: &mut Before) {
        let name = Arc::clone(&facts.name);
        if self
            .namespaces
            .insert(Arc::clone(&name), facts.clone())
            .as_ref()
            != Some(&facts)
        {
            self.join_again(self.by_namespace.get(&name).cloned(), before);
        }
    }

    pub(super) fn remove_namespace(&mut self, name: &str, before: &mut Before) {
        if self.namespaces.remove(name).is_some() {
            self.join_again(self.by_namespace.get(name).cloned(), before);
        }
    }

    pub(super) fn set_tunnel_to_pods(&mut self, node: &Arc<str>, set: bool, before: &mut Before) {
        let changed = match set {
            true => self.tunnel_to_pods.insert(Arc::clone(node)),
            false => self.tunnel_to_pods.remove(node),
        };
        if changed {
            self.join_again(self.by_node.get(node).cloned(), before);
        }
    }

    fn join_again(&mut self, names: Option<BTreeSet<ObjectName>>, before: &mut Before) {
        for name in names.into_iter().flatten() {
            if let Some(mut pod) = self.take(&name, before) {
                self.join(&mut pod);
                self.put(name, pod);
            }
        }
    }

    /// Settles what namespace and node have a say in.
    fn join(&self, pod: &mut Pod) {
        let own = &pod.workload;
        let namespace = self.namespaces.get(&own.name.namespace);
        let inherited = namespace.and_then(|namespace| namespace.enrolment);
        let host_network = own.enrolment == Enrolment::HostNetwork;
        let enrolment = Enrolment::of(host_network, pod.enrolment.or(inherited), &own.labels);
        let exclusions = match namespace {
            Some(namespace) => union(&pod.exclusions, &namespace.exclusions),
            None => Arc::clone(&pod.exclusions),
        };
        let tunnel = match self.tunnel_to_pods.contains(&own.node) {
            true => Tunnel::PodAddress,
            false => pod.tunnel,
        };
        let waypoint = match namespace {
            Some(namespace) => pod.waypoint.or(&namespace.waypoint),
            None => pod.waypoint.named().cloned(),
        };
        let before = (&own.enrolment, &own.exclusions, own.tunnel, &own.waypoint);
        if before != (&enrolment, &exclusions, tunnel, &waypoint) {
            pod.workload = Arc::new(Workload {
                enrolment,
                exclusions,
                tunnel,
                waypoint,
                ..Workload::clone(own)
            });
        }
    }

    fn put(&mut self, name: ObjectName, pod: Pod) {
        let workload = &pod.workload;
        group(&mut self.by_namespace, Arc::clone(&name.namespace), &name);
        group(&mut self.by_node, Arc::clone(&workload.node), &name);
        self.by_uid.insert(workload.uid.clone(), name.clone());
        for address in claimed(workload) {
            match self.claims.entry(*address) {
                Entry::Vacant(vacant) => drop(vacant.insert(vec![name.clone()])),
                Entry::Occupied(mut others) => others.get_mut().push(name.clone()),
            }
        }
        self.pods.insert(name, pod);
    }

    fn take(&mut self, name: &ObjectName, before: &mut Before) -> Option<Pod> {
        let pod = self.pods.remove(name);
        let workload = pod.as_ref().map(|pod| &pod.workload);
        before
            .entry(name.clone())
            .or_insert_with(|| workload.cloned());
        if let Some(workload) = workload {
            ungroup(&mut self.by_namespace, &name.namespace, name);
            ungroup(&mut self.by_node, &workload.node, name);
            self.by_uid.remove(&workload.uid);
            for address in claimed(workload) {
                if let Entry::Occupied(mut claims) = self.claims.entry(*address) {
                    claims.get_mut().retain(|held| held != name);
                    if claims.get().is_empty() {
                        claims.remove();
                    }
                }
            }
        }
        pod
    }
}

/// hostNetwork pods show their node's address, which no single one of them can claim.
fn claimed(workload: &Workload) -> &[IpAddr] {
    match workload.enrolment {
        Enrolment::HostNetwork => &[],
        _ => &workload.addresses,
    }
}

fn union(pod: &Arc<Exclusions>, namespace: &Arc<Exclusions>) -> Arc<Exclusions> {
    if **namespace == Exclusions::default() || pod == namespace {
        return Arc::clone(pod);
    }
    if **pod == Exclusions::default() {
        return Arc::clone(namespace);
    }
    Arc::new(Exclusions {
        outbound_ports: both(&pod.outbound_ports, &namespace.outbound_ports),
        inbound_ports: both(&pod.inbound_ports, &namespace.inbound_ports),
        outbound_cidrs: both(&pod.outbound_cidrs, &namespace.outbound_cidrs),
        no_splice: pod.no_splice || namespace.no_splice,
    })
}

fn both<T: Clone + Ord>(one: &[T], other: &[T]) -> Vec<T> {
    let all: BTreeSet<_> = one.iter().chain(other).cloned().collect();
    all.into_iter().collect()
}

/// Names in groups, by what they have in common.
type Groups = BTreeMap<Arc<str>, BTreeSet<ObjectName>>;

pub(super) fn group(groups: &mut Groups, key: Arc<str>, name: &ObjectName) {
    groups.entry(key).or_default().insert(name.clone());
}

pub(super) fn ungroup(groups: &mut Groups, key: &str, name: &ObjectName) {
    if let Some(names) = groups.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            groups.remove(key);
        }
    }
}
