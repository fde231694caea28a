//! The store: indexes over what is known, updated by delta, read without locks or waiting.
//!
//! A [`Snapshot`] never changes: a reader takes one and decides a whole connection on it.
//! One change costs what it touches, however much is known: a pod itself, a namespace its pods, a
//! service its endpoints.

mod pods;
mod routes;
mod services;
mod snapshot;
mod traffic_policies;
mod waypoints;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

pub use self::routes::NotAttached;
pub use self::snapshot::Snapshot;
pub use self::waypoints::{ObjectProblem, Placement};
use self::{
    pods::PodIndex,
    routes::RouteIndex,
    services::ServiceIndex,
    traffic_policies::TrafficPolicyIndex,
    waypoints::{WaypointIndex, uses_another},
};
use super::{
    facts::{GrantFacts, Kind, Object, ObjectKey},
    model::{ObjectName, RouteKind, Service, UseWaypoint, Workload},
};
use crate::policy::PolicySet;

/// How many updates a subscriber may fall behind before it has to resynchronise.
const UPDATES_KEPT: usize = 256;

/// What a source of truth reports.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new or has changed.
    Upsert(Object),
    /// The object is gone.
    Remove(ObjectKey),
}

/// What one application of changes did.
#[derive(Debug, Clone)]
pub struct Update {
    /// The state that it led to.
    pub snapshot: Arc<Snapshot>,
    /// Workloads that came, went or changed: those that went first.
    pub workloads: Vec<WorkloadChange>,
    /// Addresses for which [`Snapshot::workload_by_address`] answers otherwise than before.
    pub addresses: Vec<AddressChange>,
    /// Services that came, went or changed, endpoints included.
    pub services: Vec<ServiceChange>,
    /// Whether any policy did.
    pub policies_changed: bool,
    /// Whether any waypoint did, or which one a service uses.
    pub waypoints_changed: bool,
    /// Whether any service's routes did.
    pub routes_changed: bool,
}

/// One workload before and after. Both have the same uid: a pod that begins another life shows as
/// one that goes and one that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadChange {
    /// `None` if it came.
    pub before: Option<Arc<Workload>>,
    /// `None` if it went.
    pub after: Option<Arc<Workload>>,
}

/// Who has an address, before and after. This is what a map by address has to follow: where two
/// pods claim one address, the changes of the workloads alone don't tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressChange {
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub before: Option<Arc<Workload>>,
    /// Who has it now.
    pub after: Option<Arc<Workload>>,
}

/// One service before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    /// `None` if it came.
    pub before: Option<Arc<Service>>,
    /// `None` if it went.
    pub after: Option<Arc<Service>>,
}

/// Holds the current snapshot. One writer (the source), any number of readers.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    inputs: Mutex<Inputs>,
    updates: broadcast::Sender<Arc<Update>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(PolicySet::default())
    }
}

impl Store {
    /// Knows nothing yet but policies that are in force from the start, if there are any.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::with_policies(policies)),
            inputs: Mutex::default(),
            updates: broadcast::Sender::new(UPDATES_KEPT),
        }
    }

    /// The current state. Never waits.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether a namespace's own labels enrol its pods.
    ///
    /// # Panics
    /// If an earlier application has.
    #[must_use]
    pub fn enrols(&self, namespace: &str) -> bool {
        let inputs = self.inputs.lock().expect("an earlier application panicked");
        inputs.pods.enrols(namespace)
    }

    /// Whether a pod is asked into the mesh, by its own label or else its namespace's. It may be unable to follow.
    ///
    /// # Panics
    /// If an earlier application has.
    #[must_use]
    pub fn asks_for(&self, pod: &ObjectName) -> bool {
        let inputs = self.inputs.lock().expect("an earlier application panicked");
        inputs.pods.asks_for(pod)
    }

    /// Every update from now on. A subscriber that lags starts afresh from [`Store::snapshot`];
    /// updates that it then still receives, with a generation not above that one's, are old news.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Update>> {
        self.updates.subscribe()
    }

    /// Says where waypoints run. To be told before anything is applied.
    ///
    /// # Panics
    /// If an application of changes has.
    pub fn place_waypoints(&self, placement: Placement) {
        let mut inputs = self.inputs.lock().expect("an earlier application panicked");
        inputs.waypoints.placement = placement;
    }

    /// Applies changes in their order and publishes the result, as one snapshot and one update.
    /// Publishes nothing if nothing came of them.
    ///
    /// # Panics
    /// If an earlier call has.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        // Published under the lock, so that updates arrive in the order of their generations.
        let mut inputs = self.inputs.lock().expect("an earlier application panicked");
        let mut next = Snapshot::clone(&self.current.load());
        let mut touched = Touched::default();
        for change in changes {
            inputs.change(change, &mut next, &mut touched);
        }
        let (workloads, addresses) = inputs.settle_pods(&mut next, &mut touched);
        let services = inputs.settle_services(&mut next, &touched);
        let policies_changed = touched.policies;
        let waypoints_changed =
            inputs.settle_waypoints(&mut next, &mut touched) || uses_another(&services);
        let routes_changed = inputs.routes.settle(&mut next, &services);
        let Inputs {
            traffic_policies,
            routes,
            ..
        } = &mut *inputs;
        touched.traffic |= traffic_policies.settle(&mut next, &services, routes);
        let objects = workloads.is_empty() && addresses.is_empty() && services.is_empty();
        let others = policies_changed || waypoints_changed || routes_changed;
        let unseen = touched.problems || touched.traffic;
        if objects && !others && !unseen {
            return;
        }
        next.generation += 1;
        let snapshot = Arc::new(next);
        self.current.store(Arc::clone(&snapshot));
        let update = Update {
            snapshot,
            workloads,
            addresses,
            services,
            policies_changed,
            waypoints_changed,
            routes_changed,
        };
        // Fails when nobody listens, which is nobody's loss.
        self.updates.send(Arc::new(update)).ok();
    }
}

/// What an application has to look at again when all of its changes are in.
#[derive(Debug, Default)]
struct Touched {
    /// Pods, with their workloads before.
    pods: BTreeMap<ObjectName, Option<Arc<Workload>>>,
    services: BTreeSet<ObjectName>,
    policies: bool,
    waypoints: bool,
    /// TrafficPolicies, or zones of nodes: who asks for them takes a snapshot each time.
    traffic: bool,
    /// What is wrong with waypoints is something else than before.
    problems: bool,
}

/// The objects as the source gave them, reduced to what joins need.
#[derive(Debug, Default)]
struct Inputs {
    pods: PodIndex,
    services: ServiceIndex,
    waypoints: WaypointIndex,
    routes: RouteIndex,
    traffic_policies: TrafficPolicyIndex,
}

impl Inputs {
    fn change(&mut self, change: Change, next: &mut Snapshot, touched: &mut Touched) {
        let (pods, services) = (&mut touched.pods, &mut touched.services);
        touched.waypoints |= self.waypoints.change(&change);
        touched.traffic |= self.services.take_zone(&change, next, services);
        match change {
            Change::Upsert(Object::Namespace(facts)) => {
                self.services
                    .set_namespace(&facts.name, &facts.waypoint, services);
                self.pods.insert_namespace(facts, pods);
            }
            Change::Upsert(Object::Node(facts)) => {
                self.pods
                    .set_tunnel_to_pods(&facts.name, facts.tunnel_to_pods, pods);
            }
            Change::Upsert(Object::Pod(facts)) => self.pods.insert(*facts, pods),
            Change::Upsert(Object::Service(facts)) => self.services.insert(facts, services),
            Change::Upsert(Object::EndpointSlice(facts)) => {
                self.services.insert_slice(facts, services);
            }
            Change::Upsert(Object::Gateway(_)) => {}
            Change::Upsert(Object::Route(route)) => {
                self.traffic_policies.route_changed(route.kind, &route.name);
                self.routes.insert(*route);
            }
            Change::Upsert(Object::ReferenceGrant(grant)) => {
                let name = grant.name.clone();
                self.set_grant(&name, Some(grant), next);
            }
            Change::Upsert(Object::TrafficPolicy(policy)) => self.traffic_policies.insert(policy),
            Change::Upsert(Object::AuthorizationPolicy(policy)) => {
                touched.policies = true;
                next.policies.insert_authorization(policy);
            }
            Change::Upsert(Object::PeerAuthentication(policy)) => {
                touched.policies = true;
                next.policies.insert_peer_authentication(policy);
            }
            Change::Upsert(Object::RequestAuthentication(policy)) => {
                touched.policies = true;
                next.policies.insert_request_authentication(policy);
            }
            Change::Remove(ObjectKey { kind, name }) => match kind {
                Kind::Namespace => {
                    self.services
                        .set_namespace(&name.name, &UseWaypoint::Unset, services);
                    self.pods.remove_namespace(&name.name, pods);
                }
                Kind::Node => self.pods.set_tunnel_to_pods(&name.name, false, pods),
                Kind::Pod => self.pods.remove(&name, pods),
                Kind::Service => self.services.remove(&name, services),
                Kind::EndpointSlice => self.services.remove_slice(&name, services),
                Kind::Gateway => {}
                Kind::HTTPRoute => self.remove_route(RouteKind::Http, &name),
                Kind::GRPCRoute => self.remove_route(RouteKind::Grpc, &name),
                Kind::ReferenceGrant => self.set_grant(&name, None, next),
                Kind::TrafficPolicy => self.traffic_policies.remove(&name),
                Kind::AuthorizationPolicy => {
                    touched.policies = true;
                    next.policies.remove_authorization(&name);
                }
                Kind::PeerAuthentication => {
                    touched.policies = true;
                    next.policies.remove_peer_authentication(&name);
                }
                Kind::RequestAuthentication => {
                    touched.policies = true;
                    next.policies.remove_request_authentication(&name);
                }
            },
        }
    }

    fn remove_route(&mut self, kind: RouteKind, name: &ObjectName) {
        self.traffic_policies.route_changed(kind, name);
        self.routes.remove(kind, name);
    }

    fn set_grant(&mut self, name: &ObjectName, grant: Option<GrantFacts>, next: &mut Snapshot) {
        if next.set_grant(name, grant) {
            self.routes.grants_changed(&name.namespace);
        }
    }

    /// Brings workloads and addresses of the snapshot up to date with the touched pods.
    fn settle_pods(
        &mut self,
        next: &mut Snapshot,
        touched: &mut Touched,
    ) -> (Vec<WorkloadChange>, Vec<AddressChange>) {
        let (mut gone, mut others) = (Vec::new(), Vec::new());
        let mut addresses = BTreeSet::new();
        for (name, before) in &touched.pods {
            let after = self.pods.workload(name).map(Arc::clone);
            // Also where the workload is the same: the pod may have another start or other named
            // ports, which settle whose an address is and who serves.
            for (workload, is_there) in [(before.as_ref(), false), (after.as_ref(), true)] {
                let Some(workload) = workload else { continue };
                self.services
                    .pod_changed(workload, is_there, &mut touched.services);
                addresses.extend(workload.addresses.iter().copied());
            }
            if *before == after {
                continue;
            }
            match (before.clone(), after) {
                (Some(before), Some(after)) if before.uid != after.uid => {
                    gone.push(WorkloadChange {
                        before: Some(before),
                        after: None,
                    });
                    others.push(WorkloadChange {
                        before: None,
                        after: Some(after),
                    });
                }
                (before, None) => gone.push(WorkloadChange {
                    before,
                    after: None,
                }),
                (before, after) => others.push(WorkloadChange { before, after }),
            }
        }
        // Those that went come first: a uid may have passed to another pod.
        gone.append(&mut others);
        for WorkloadChange { before, after } in &gone {
            next.set_workload(before.as_ref(), after.as_ref());
        }
        let mut changes = Vec::new();
        for address in addresses {
            let claimants = self.pods.claimants(address);
            next.set_contested(address, &claimants);
            let after = claimants
                .first()
                .and_then(|name| self.pods.workload(name))
                .cloned();
            let before = next.set_address(address, after.clone());
            if before != after {
                changes.push(AddressChange {
                    address,
                    before,
                    after,
                });
            }
        }
        (gone, changes)
    }

    fn settle_services(&mut self, next: &mut Snapshot, touched: &Touched) -> Vec<ServiceChange> {
        let mut changes = Vec::new();
        for name in &touched.services {
            let after = self.services.assemble(name, &self.pods).map(Arc::new);
            let before = next.service(name).cloned();
            if before != after {
                next.set_service(name, after.clone());
                changes.push(ServiceChange { before, after });
            }
        }
        changes
    }

    /// Whether a waypoint came, went or changed.
    fn settle_waypoints(&self, next: &mut Snapshot, touched: &mut Touched) -> bool {
        if !self.waypoints.is_touched(touched) {
            return false;
        }
        let (waypoints, problems) = self.waypoints.assemble(next, &self.pods);
        let changed = next.waypoints != waypoints;
        // Problems alone are news to those who look, not to those who follow.
        touched.problems = *next.waypoint_problems != *problems;
        next.waypoints = waypoints;
        next.waypoint_problems = problems;
        changed
    }
}

#[cfg(test)]
mod tests;
