//! One state of everything, in persistent maps: a copy shares all but what is changed in it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::{HashMap, OrdMap};

use super::{
    ObjectProblem,
    traffic_policies::{Targeted, TrafficPolicies},
};
use crate::{
    discovery::{
        facts::GrantFacts,
        model::{
            ObjectName, RouteKind, RouteTable, Service, TrafficPolicy, Waypoint, Workload,
            WorkloadUid,
        },
    },
    identity::Identity,
    policy::{PolicySet, Through},
};

/// Everything known at one moment. Cloning costs the same at any size.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    by_node: HashMap<Arc<str>, OrdMap<WorkloadUid, Arc<Workload>>>,
    contested: HashMap<IpAddr, Arc<[ObjectName]>>,
    services: HashMap<ObjectName, Arc<Service>>,
    by_vip: HashMap<IpAddr, Arc<[ObjectName]>>,
    /// Services that use a waypoint, by the addresses of their endpoints.
    fronted: HashMap<IpAddr, Arc<[ObjectName]>>,
    routes: HashMap<ObjectName, Arc<RouteTable>>,
    /// ReferenceGrants, by namespace and name.
    pub(super) grants: OrdMap<Arc<str>, OrdMap<Arc<str>, GrantFacts>>,
    pub(super) route_problems: Arc<[ObjectProblem]>,
    /// Zones of nodes that have one.
    zones: HashMap<Arc<str>, Arc<str>>,
    pub(super) traffic_policies: TrafficPolicies,
    pub(super) traffic_policy_problems: Arc<[ObjectProblem]>,
    pub(super) waypoints: OrdMap<ObjectName, Arc<Waypoint>>,
    pub(super) waypoint_problems: Arc<[ObjectProblem]>,
    pub(super) policies: PolicySet,
    pub(super) generation: u64,
}

impl Snapshot {
    pub(super) fn with_policies(policies: PolicySet) -> Self {
        Self {
            policies,
            ..Self::default()
        }
    }

    /// Counts the changes since the start: two snapshots with the same number are the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The workload that has this address now. Never a hostNetwork pod: the address is its node's.
    #[must_use]
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// The workload with this uid.
    #[must_use]
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// Whether that is a workload, or a waypoint, that is there now.
    #[must_use]
    pub fn is_alive(&self, uid: &WorkloadUid) -> bool {
        self.workloads.contains_key(uid) || self.waypoints().any(|waypoint| waypoint.uid == *uid)
    }

    /// How a connection of `source` stands to the waypoints of `destination`.
    #[must_use]
    pub fn through<'a>(&'a self, source: Option<&Identity>, destination: &Workload) -> Through<'a> {
        let Some(source) = source else {
            return Through::None;
        };
        if let Some(before) = self.waypoint_before(source, destination) {
            return Through::Waypoint(&before.name);
        }
        let own = self.waypoint_of_workload(destination);
        own.map_or(Through::None, |own| Through::Past(&own.name))
    }

    /// The service whose VIP and port this is. If there are several, the first by name.
    #[must_use]
    pub fn service_by_vip(&self, destination: SocketAddr) -> Option<&Arc<Service>> {
        let names = self.by_vip.get(&destination.ip())?;
        let mut services = names.iter().filter_map(|name| self.services.get(name));
        services.find(|service| {
            service
                .ports
                .iter()
                .any(|port| port.port == destination.port())
        })
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// What routes say of requests to a service; `None` if it has none.
    #[must_use]
    pub fn routes_of(&self, service: &ObjectName) -> Option<&Arc<RouteTable>> {
        self.routes.get(service)
    }

    /// The policy for a port of a service: one for this port, or else one for the service.
    #[must_use]
    pub fn traffic_policy_of_service(
        &self,
        service: &ObjectName,
        port: u16,
    ) -> Option<&Arc<TrafficPolicy>> {
        let policies = self.traffic_policies.of_service(service)?;
        let mut ports = self.service(service)?.ports.iter();
        let served = ports.find(|served| served.port == port);
        policies.of(served.map(|served| &*served.name))
    }

    /// The policy for a rule of a route: one for the rule of this name, or else one for the route.
    #[must_use]
    pub fn traffic_policy_of_route(
        &self,
        kind: RouteKind,
        route: &ObjectName,
        rule: Option<&str>,
    ) -> Option<&Arc<TrafficPolicy>> {
        self.traffic_policies.of_route(kind, route)?.of(rule)
    }

    /// Every policy for a service (`None`) or route, whichever port or rule it is for.
    pub fn traffic_policies_of(
        &self,
        kind: Option<RouteKind>,
        name: &ObjectName,
    ) -> impl Iterator<Item = &Arc<TrafficPolicy>> {
        let policies = match kind {
            None => self.traffic_policies.of_service(name),
            Some(kind) => self.traffic_policies.of_route(kind, name),
        };
        policies.into_iter().flat_map(Targeted::all)
    }

    /// Every workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The workloads of one node, by uid.
    pub fn local_workloads(&self, node: &str) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_node.get(node).into_iter().flat_map(OrdMap::values)
    }

    /// Every service, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The zone of a node, if its Node object says it.
    #[must_use]
    pub fn zone_of_node(&self, node: &str) -> Option<&Arc<str>> {
        self.zones.get(node)
    }

    /// Addresses that several pods claim, with these pods: the first has it.
    pub fn contested_addresses(&self) -> impl Iterator<Item = (IpAddr, &[ObjectName])> {
        self.contested
            .iter()
            .map(|(address, pods)| (*address, &**pods))
    }

    /// Every waypoint, by name.
    pub fn waypoints(&self) -> impl Iterator<Item = &Arc<Waypoint>> {
        self.waypoints.values()
    }

    /// The waypoint of this name.
    #[must_use]
    pub fn waypoint(&self, name: &ObjectName) -> Option<&Arc<Waypoint>> {
        self.waypoints.get(name)
    }

    /// The waypoint that traffic addressed to a service's VIP goes through.
    #[must_use]
    pub fn waypoint_of_service(&self, service: &Service) -> Option<&Arc<Waypoint>> {
        let waypoint = self.waypoint(service.waypoint.as_ref()?)?;
        waypoint.serves.services.then_some(waypoint)
    }

    /// The waypoint that traffic addressed to a workload goes through.
    #[must_use]
    pub fn waypoint_of_workload(&self, workload: &Workload) -> Option<&Arc<Waypoint>> {
        let waypoint = self.waypoint(workload.waypoint.as_ref()?)?;
        waypoint.serves.workloads.then_some(waypoint)
    }

    /// The waypoint of that identity, if it is one through which traffic comes to the workload: its own,
    /// or that of a service which has it for an endpoint.
    #[must_use]
    pub fn waypoint_before(
        &self,
        identity: &Identity,
        workload: &Workload,
    ) -> Option<&Arc<Waypoint>> {
        let is_it = |waypoint: &&Arc<Waypoint>| waypoint.identity == *identity;
        if let Some(own) = self.waypoint_of_workload(workload).filter(is_it) {
            return Some(own);
        }
        let fronts = workload.addresses.iter();
        let fronts = fronts.filter_map(|address| self.fronted.get(address));
        let mut services = fronts.flat_map(|names| names.iter());
        services.find_map(|name| {
            let service = self.services.get(name)?;
            self.waypoint_of_service(service).filter(is_it)
        })
    }

    /// What is wrong with objects in the light of others: with waypoints and with what names them, and with
    /// what routes and policies refer to.
    pub fn problems(&self) -> impl Iterator<Item = &ObjectProblem> {
        let problems = self.waypoint_problems.iter();
        let problems = problems.chain(&*self.route_problems);
        problems.chain(&*self.traffic_policy_problems)
    }

    /// The policies, ready to be evaluated.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    pub(super) fn set_workload(
        &mut self,
        before: Option<&Arc<Workload>>,
        after: Option<&Arc<Workload>>,
    ) {
        let stays = |before: &Workload, after: &Workload| {
            before.uid == after.uid && before.node == after.node
        };
        if let Some(before) = before
            && !after.is_some_and(|after| stays(before, after))
        {
            self.workloads.remove(&before.uid);
            if let Some(local) = self.by_node.get_mut(&before.node) {
                local.remove(&before.uid);
                if local.is_empty() {
                    self.by_node.remove(&before.node);
                }
            }
        }
        if let Some(after) = after {
            self.workloads.insert(after.uid.clone(), Arc::clone(after));
            let local = self.by_node.entry(Arc::clone(&after.node)).or_default();
            local.insert(after.uid.clone(), Arc::clone(after));
        }
    }

    /// Answers who had the address.
    pub(super) fn set_address(
        &mut self,
        address: IpAddr,
        holder: Option<Arc<Workload>>,
    ) -> Option<Arc<Workload>> {
        match holder {
            Some(holder) => self.by_address.insert(address, holder),
            None => self.by_address.remove(&address),
        }
    }

    pub(super) fn set_zone(&mut self, node: &Arc<str>, zone: Option<Arc<str>>) {
        match zone {
            Some(zone) => self.zones.insert(Arc::clone(node), zone),
            None => self.zones.remove(node),
        };
    }

    /// Keeps, and reports once, that more than one pod claims the address.
    pub(super) fn set_contested(&mut self, address: IpAddr, claimants: &[ObjectName]) {
        let before = self.contested.get(&address);
        match claimants {
            [] | [_] => {
                self.contested.remove(&address);
            }
            _ if before.is_some_and(|before| **before == *claimants) => {}
            [winner, others @ ..] => {
                let others: Vec<_> = others.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    %address,
                    pod = %winner,
                    others = others.join(", "),
                    "several pods claim one address: the newest has it"
                );
                self.contested.insert(address, claimants.into());
            }
        }
    }

    /// Whether that is something new.
    pub(super) fn set_routes(&mut self, service: &ObjectName, table: Option<RouteTable>) -> bool {
        if self.routes.get(service).map(|it| &**it) == table.as_ref() {
            return false;
        }
        match table {
            Some(table) => self.routes.insert(service.clone(), Arc::new(table)),
            None => self.routes.remove(service),
        };
        true
    }

    pub(super) fn set_service(&mut self, name: &ObjectName, after: Option<Arc<Service>>) {
        let before = match &after {
            Some(service) => self.services.insert(name.clone(), Arc::clone(service)),
            None => self.services.remove(name),
        };
        let old = before.as_ref().map_or(&[][..], |service| &service.vips);
        let new = after.as_ref().map_or(&[][..], |service| &service.vips);
        for vip in old.iter().filter(|vip| !new.contains(vip)) {
            edit(&mut self.by_vip, *vip, |names| {
                names.retain(|held| held != name)
            });
        }
        for vip in new.iter().filter(|vip| !old.contains(vip)) {
            edit(&mut self.by_vip, *vip, |names| names.push(name.clone()));
        }
        let fronted = |service: Option<&Arc<Service>>| -> BTreeSet<IpAddr> {
            let service = service.filter(|service| service.waypoint.is_some());
            let endpoints = service.into_iter().flat_map(|it| it.endpoints.iter());
            endpoints.map(|endpoint| endpoint.address).collect()
        };
        let (old, new) = (fronted(before.as_ref()), fronted(after.as_ref()));
        for address in old.difference(&new) {
            edit(&mut self.fronted, *address, |names| {
                names.retain(|held| held != name)
            });
        }
        for address in new.difference(&old) {
            edit(&mut self.fronted, *address, |names| {
                names.push(name.clone())
            });
        }
    }
}

/// Changes the names under an address; sorted, and none is there twice.
fn edit(
    map: &mut HashMap<IpAddr, Arc<[ObjectName]>>,
    address: IpAddr,
    edit: impl FnOnce(&mut Vec<ObjectName>),
) {
    let mut names = map
        .get(&address)
        .map(|names| names.to_vec())
        .unwrap_or_default();
    edit(&mut names);
    names.sort();
    names.dedup();
    if names.is_empty() {
        map.remove(&address);
    } else {
        map.insert(address, names.into());
    }
}
