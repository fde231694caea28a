//! Services joined with their endpoints: from EndpointSlices, else from the pods they select.
//!
//! The second is what the control plane's endpoint controller does, for manifests without one.
//! With a control plane every selecting service soon has slices, and its pods cost nothing here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Change, Snapshot,
    pods::{Pod, PodIndex, group, ungroup},
};
use crate::discovery::{
    facts::{Candidate, Kind, Object, ServiceFacts, SliceFacts, TargetPort},
    model::{Endpoint, ObjectName, Service, TrafficDistribution, UseWaypoint, Workload},
};

type Slices = BTreeMap<ObjectName, Vec<Candidate>>;

/// All services and all slices.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    services: HashMap<ObjectName, Entry>,
    slices: HashMap<ObjectName, Slices>,
    service_of_slice: HashMap<ObjectName, ObjectName>,
    /// The services that follow pods, by namespace and one label of their selectors, `key=value`.
    followers: HashMap<Arc<str>, HashMap<String, BTreeSet<ObjectName>>>,
    by_namespace: BTreeMap<Arc<str>, BTreeSet<ObjectName>>,
    /// What namespaces say of the waypoint of their services, where they say something.
    waypoints: HashMap<Arc<str>, UseWaypoint>,
    /// Zones of nodes, for endpoints that no slice tells the zone of.
    zones: HashMap<Arc<str>, Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    facts: ServiceFacts,
    /// The pods it selects, kept up to date for as long as it follows them.
    members: Option<BTreeSet<ObjectName>>,
}

impl ServiceIndex {
    pub(super) fn insert(&mut self, facts: ServiceFacts, dirty: &mut BTreeSet<ObjectName>) {
        let name = facts.name.clone();
        self.unfollow(&name);
        group(&mut self.by_namespace, Arc::clone(&name.namespace), &name);
        self.services.insert(
            name.clone(),
            Entry {
                facts,
                members: None,
            },
        );
        dirty.insert(name);
    }

    pub(super) fn remove(&mut self, name: &ObjectName, dirty: &mut BTreeSet<ObjectName>) {
        self.unfollow(name);
        self.services.remove(name);
        ungroup(&mut self.by_namespace, &name.namespace, name);
        dirty.insert(name.clone());
    }

    /// Notes what a namespace says of the waypoint of its services.
    pub(super) fn set_namespace(
        &mut self,
        name: &Arc<str>,
        waypoint: &UseWaypoint,
        dirty: &mut BTreeSet<ObjectName>,
    ) {
        let before = match waypoint {
            UseWaypoint::Unset => self.waypoints.remove(name),
            _ => self.waypoints.insert(Arc::clone(name), waypoint.clone()),
        };
        if before.unwrap_or_default() != *waypoint {
            dirty.extend(self.by_namespace.get(name).into_iter().flatten().cloned());
        }
    }

    /// Takes the zone of a node from a change. Whether it is another than before.
    pub(super) fn take_zone(
        &mut self,
        change: &Change,
        next: &mut Snapshot,
        dirty: &mut BTreeSet<ObjectName>,
    ) -> bool {
        let (node, zone) = match change {
            Change::Upsert(Object::Node(facts)) => (&facts.name, facts.zone.as_ref()),
            Change::Remove(key) if key.kind == Kind::Node => (&key.name.name, None),
            _ => return false,
        };
        next.set_zone(node, zone.cloned());
        let before = match zone {
            Some(zone) => self.zones.insert(Arc::clone(node), Arc::clone(zone)),
            None => self.zones.remove(node),
        };
        if before.as_ref() == zone {
            return false;
        }
        let services = self.services.iter();
        let followers = services.filter(|(_, entry)| entry.members.is_some());
        dirty.extend(followers.map(|(name, _)| name.clone()));
        true
    }

    pub(super) fn insert_slice(&mut self, facts: SliceFacts, dirty: &mut BTreeSet<ObjectName>) {
        self.remove_slice(&facts.name, dirty);
        let Some(service) = facts.service else { return };
        self.service_of_slice
            .insert(facts.name.clone(), service.clone());
        self.slices
            .entry(service.clone())
            .or_default()
            .insert(facts.name, facts.endpoints);
        dirty.insert(service);
    }

    pub(super) fn remove_slice(&mut self, slice: &ObjectName, dirty: &mut BTreeSet<ObjectName>) {
        let Some(service) = self.service_of_slice.remove(slice) else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        dirty.insert(service);
    }

    /// Notes that a workload is there now, or that it isn't there (any more) as it was.
    pub(super) fn pod_changed(
        &mut self,
        workload: &Workload,
        is_there: bool,
        dirty: &mut BTreeSet<ObjectName>,
    ) {
        let Some(followers) = self.followers.get(&workload.name.namespace) else {
            return;
        };
        for (key, value) in &*workload.labels {
            for service in followers
                .get(&format!("{key}={value}"))
                .into_iter()
                .flatten()
            {
                let Some(entry) = self.services.get_mut(service) else {
                    continue;
                };
                let Some(members) = &mut entry.members else {
                    continue;
                };
                dirty.insert(service.clone());
                if is_there && selects(&entry.facts, workload) {
                    members.insert(workload.name.clone());
                } else {
                    members.remove(&workload.name);
                }
            }
        }
    }

    /// The service with its endpoints as they are now; `None` if there is no such service.
    pub(super) fn assemble(&mut self, name: &ObjectName, pods: &PodIndex) -> Option<Service> {
        if self.slices.contains_key(name) {
            self.unfollow(name);
        } else {
            self.follow(name, pods);
        }
        let Entry { facts, members } = self.services.get(name)?;
        let endpoints = match (self.slices.get(name), members) {
            (Some(slices), _) => serving(facts, slices.values().flatten().map(Cow::Borrowed)),
            (None, Some(members)) => {
                let pods = members.iter().filter_map(|name| pods.get(name));
                let all = pods.flat_map(|pod| candidates(facts, pod, &self.zones));
                serving(facts, all.map(Cow::Owned))
            }
            (None, None) => Arc::default(),
        };
        let inherited = self.waypoints.get(&name.namespace);
        let waypoint = facts.waypoint.or(inherited.unwrap_or(&UseWaypoint::Unset));
        Some(Service {
            name: name.clone(),
            waypoint,
            vips: facts.vips.clone(),
            ports: facts.ports.iter().map(|(port, _)| port.clone()).collect(),
            traffic_distribution: facts.traffic_distribution,
            endpoints,
        })
    }

    fn follow(&mut self, name: &ObjectName, pods: &PodIndex) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let (None, Some((namespace, label))) = (&entry.members, label(&entry.facts)) else {
            return;
        };
        let selected = pods
            .in_namespace(&name.namespace)
            .filter(|pod| selects(&entry.facts, &pod.workload))
            .map(|pod| pod.workload.name.clone());
        entry.members = Some(selected.collect());
        let of_namespace = self.followers.entry(namespace).or_default();
        of_namespace.entry(label).or_default().insert(name.clone());
    }

    fn unfollow(&mut self, name: &ObjectName) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let (Some(_), Some((namespace, label))) = (entry.members.take(), label(&entry.facts))
        else {
            return;
        };
        let Some(of_namespace) = self.followers.get_mut(&namespace) else {
            return;
        };
        if let Some(followers) = of_namespace.get_mut(&label) {
            followers.remove(name);
            if followers.is_empty() {
                of_namespace.remove(&label);
            }
        }
        if of_namespace.is_empty() {
            self.followers.remove(&namespace);
        }
    }
}

/// The label that a follower is found by: any one of its selector does, as all must match.
fn label(facts: &ServiceFacts) -> Option<(Arc<str>, String)> {
    let (key, value) = facts.selector.as_ref()?.first_key_value()?;
    Some((Arc::clone(&facts.name.namespace), format!("{key}={value}")))
}

fn selects(facts: &ServiceFacts, workload: &Workload) -> bool {
    let mut wanted = facts.selector.iter().flatten();
    wanted.all(|(key, value)| workload.labels.get(key) == Some(value))
}

/// What the endpoint controller would write down for a selected pod. A pod without the named port
/// doesn't serve that port.
fn candidates<'a>(
    facts: &'a ServiceFacts,
    pod: &'a Pod,
    zones: &'a HashMap<Arc<str>, Arc<str>>,
) -> impl Iterator<Item = Candidate> + 'a {
    let workload = &pod.workload;
    let ready = facts.publish_not_ready || (workload.ready && !pod.workload.terminating);
    let may_serve = ready || workload.ready;
    let addresses = workload.addresses.iter();
    let addresses = addresses.filter(move |address| may_serve && facts.families.contain(**address));
    addresses.flat_map(move |address| {
        facts.ports.iter().filter_map(move |(port, target)| {
            let number = match target {
                TargetPort::Number(number) => *number,
                TargetPort::Name(name) => pod.ports.iter().find(|port| port.name == *name)?.port,
            };
            let endpoint = Endpoint {
                port_name: Arc::clone(&port.name),
                address: *address,
                port: number,
                node: Some(Arc::clone(&workload.node)).filter(|node| !node.is_empty()),
                zone: zones.get(&workload.node).cloned(),
            };
            Some(Candidate { endpoint, ready })
        })
    })
}

/// The endpoints that kube-proxy would use, of the service's TCP ports: the ready ones; for a port
/// that has none of them, those that still serve while they terminate. With a local policy each
/// node decides by itself, so the fallback is each node's own.
fn serving<'a>(
    facts: &ServiceFacts,
    all: impl Iterator<Item = Cow<'a, Candidate>>,
) -> Arc<[Endpoint]> {
    let local = facts.traffic_distribution == TrafficDistribution::OnlySameNode;
    let ports: HashSet<&str> = facts.ports.iter().map(|(port, _)| &*port.name).collect();
    let all: Vec<_> = all
        .filter(|candidate| ports.contains(&*candidate.endpoint.port_name))
        .collect();
    let group = |candidate: &'_ Candidate| {
        let endpoint = &candidate.endpoint;
        let node = endpoint.node.clone().filter(|_| local);
        (Arc::clone(&endpoint.port_name), node)
    };
    let mut ready = HashSet::new();
    // Nearly always all are, and then nobody has to be asked for.
    if all.iter().any(|candidate| !candidate.ready) {
        let those = all.iter().filter(|candidate| candidate.ready);
        ready.extend(those.map(|candidate| group(candidate)));
    }
    let mut used: Vec<_> = all
        .into_iter()
        .filter(|candidate| candidate.ready || !ready.contains(&group(candidate)))
        .map(|candidate| match candidate {
            Cow::Borrowed(candidate) => candidate.endpoint.clone(),
            Cow::Owned(candidate) => candidate.endpoint,
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    used.into()
}
