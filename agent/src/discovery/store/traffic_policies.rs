//! TrafficPolicies by what they are for.
//!
//! A change costs the targets of the policies that it touches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::HashMap;

use super::{ObjectProblem, ServiceChange, Snapshot, routes::RouteIndex};
use crate::discovery::{
    facts::{Kind, ObjectKey},
    model::{ObjectName, Route, RouteKind, Service, TrafficPolicy, TrafficPolicyTarget},
    reduce::{Fault, FieldError},
};

/// The policies that are in force, for those who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct TrafficPolicies {
    services: HashMap<ObjectName, Targeted>,
    http_routes: HashMap<ObjectName, Targeted>,
    grpc_routes: HashMap<ObjectName, Targeted>,
}

/// The policies of one target: those of single ports or rules go first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Targeted {
    whole: Option<Arc<TrafficPolicy>>,
    sections: Arc<[(Arc<str>, Arc<TrafficPolicy>)]>,
}

/// `None` for a Service.
type Target = (Option<RouteKind>, ObjectName);

/// All policies, and what has to be looked at again.
#[derive(Debug, Default)]
pub(super) struct TrafficPolicyIndex {
    policies: BTreeMap<ObjectName, Arc<TrafficPolicy>>,
    by_target: BTreeMap<Target, BTreeSet<ObjectName>>,
    problems: BTreeMap<Target, Vec<ObjectProblem>>,
    touched: BTreeSet<Target>,
}

impl TrafficPolicies {
    pub(super) fn of_service(&self, service: &ObjectName) -> Option<&Targeted> {
        self.services.get(service)
    }

    pub(super) fn of_route(&self, kind: RouteKind, route: &ObjectName) -> Option<&Targeted> {
        match kind {
            RouteKind::Http => self.http_routes.get(route),
            RouteKind::Grpc => self.grpc_routes.get(route),
        }
    }

    fn set(&mut self, (kind, name): &Target, targeted: Option<Targeted>) {
        let all = match kind {
            None => &mut self.services,
            Some(RouteKind::Http) => &mut self.http_routes,
            Some(RouteKind::Grpc) => &mut self.grpc_routes,
        };
        match targeted {
            Some(targeted) => all.insert(name.clone(), targeted),
            None => all.remove(name),
        };
    }
}

impl Targeted {
    /// The policy of a section, or else of the whole.
    pub(super) fn of(&self, section: Option<&str>) -> Option<&Arc<TrafficPolicy>> {
        let mut sections = self.sections.iter();
        let own = sections.find(|(name, _)| Some(&**name) == section);
        own.map(|(_, policy)| policy).or(self.whole.as_ref())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<TrafficPolicy>> {
        let sections = self.sections.iter().map(|(_, policy)| policy);
        sections.chain(&self.whole)
    }
}

impl TrafficPolicyIndex {
    pub(super) fn insert(&mut self, policy: TrafficPolicy) {
        if self
            .policies
            .get(&policy.name)
            .is_some_and(|it| **it == policy)
        {
            return;
        }
        self.remove(&policy.name);
        for target in &policy.targets {
            let target = target_of(&policy, target);
            let policies = self.by_target.entry(target.clone()).or_default();
            policies.insert(policy.name.clone());
            self.touched.insert(target);
        }
        self.policies.insert(policy.name.clone(), Arc::new(policy));
    }

    pub(super) fn remove(&mut self, name: &ObjectName) {
        let Some(policy) = self.policies.remove(name) else {
            return;
        };
        for target in &policy.targets {
            let target = target_of(&policy, target);
            if let Some(policies) = self.by_target.get_mut(&target) {
                policies.remove(name);
                if policies.is_empty() {
                    self.by_target.remove(&target);
                }
            }
            self.touched.insert(target);
        }
    }

    /// Notes that a route came, went or changed.
    pub(super) fn route_changed(&mut self, kind: RouteKind, route: &ObjectName) {
        let target = (Some(kind), route.clone());
        if self.by_target.contains_key(&target) {
            self.touched.insert(target);
        }
    }

    /// Brings the snapshot up to date. Whether anything may be otherwise than before.
    pub(super) fn settle(
        &mut self,
        next: &mut Snapshot,
        services: &[ServiceChange],
        routes: &RouteIndex,
    ) -> bool {
        for ServiceChange { before, after } in services {
            if let Some(service) = before.as_ref().or(after.as_ref()) {
                let target = (None, service.name.clone());
                if self.by_target.contains_key(&target) && ports(before) != ports(after) {
                    self.touched.insert(target);
                }
            }
        }
        if self.touched.is_empty() {
            return false;
        }
        for target in std::mem::take(&mut self.touched) {
            let mut problems = Vec::new();
            let there = match target.0 {
                None => There::service(next.service(&target.1).map(|it| &**it)),
                Some(kind) => There::route(routes.read(kind, &target.1)),
            };
            let targeted = self.targeted(&target, &there, &mut problems);
            next.traffic_policies.set(&target, targeted);
            if problems.is_empty() {
                self.problems.remove(&target);
            } else {
                self.problems.insert(target, problems);
            }
        }
        next.traffic_policy_problems = self.problems.values().flatten().cloned().collect();
        true
    }

    /// The policies that are in force for a target, and what is wrong with those that name it.
    fn targeted(
        &self,
        target: &Target,
        there: &There<'_>,
        problems: &mut Vec<ObjectProblem>,
    ) -> Option<Targeted> {
        let names = self.by_target.get(target)?.iter();
        let mut policies: Vec<_> = names.filter_map(|name| self.policies.get(name)).collect();
        policies.sort_by_key(|policy| (policy.created, &policy.name));
        let mut in_force = BTreeMap::<Option<&Arc<str>>, &Arc<TrafficPolicy>>::new();
        for policy in policies {
            for (index, named) in policy.targets.iter().enumerate() {
                if target_of(policy, named) != *target {
                    continue;
                }
                let mut complain = |fault, reason| {
                    let field = format!("spec.targetRefs[{index}]");
                    let error = FieldError::new(field, reason).of_fault(fault);
                    problems.push(problem(policy, error));
                };
                match in_force.get(&named.section()) {
                    Some(older) if !Arc::ptr_eq(older, policy) => complain(
                        Fault::Conflicted,
                        format!(
                            "{named} has an older policy already, {}, which is in force: name \
                             another target, or remove one of the two",
                            older.name
                        ),
                    ),
                    Some(_) => {
                        let reason = format!("{named} is named twice: remove one");
                        complain(Fault::Invalid, reason);
                    }
                    None => {
                        in_force.insert(named.section(), policy);
                        if let Some(reason) = there.complaint(named) {
                            complain(Fault::TargetNotFound, reason);
                        }
                    }
                }
            }
        }
        let whole = in_force.remove(&None).map(Arc::clone);
        let sections = in_force.into_iter().filter_map(|(section, policy)| {
            let section = section?;
            Some((Arc::clone(section), Arc::clone(policy)))
        });
        Some(Targeted {
            whole,
            sections: sections.collect(),
        })
    }
}

fn target_of(policy: &TrafficPolicy, target: &TrafficPolicyTarget) -> Target {
    let (kind, name) = match target {
        TrafficPolicyTarget::Service { name, .. } => (None, name),
        TrafficPolicyTarget::Route { kind, name, .. } => (Some(*kind), name),
    };
    let name = ObjectName {
        namespace: Arc::clone(&policy.name.namespace),
        name: Arc::clone(name),
    };
    (kind, name)
}

/// What there is of a target.
enum There<'a> {
    Nothing,
    Service(&'a Service),
    Route(&'a Route),
}

impl<'a> There<'a> {
    fn service(service: Option<&'a Service>) -> Self {
        service.map_or(Self::Nothing, Self::Service)
    }

    fn route(route: Option<&'a Route>) -> Self {
        route.map_or(Self::Nothing, Self::Route)
    }

    /// What is wrong with a target that is named, as things are.
    fn complaint(&self, named: &TrafficPolicyTarget) -> Option<String> {
        let section = named.section();
        match self {
            Self::Nothing => Some(format!(
                "there is no {named} in the policy's namespace: create it, or name another"
            )),
            Self::Service(service) => {
                let port = section?;
                let has_it = service.ports.iter().any(|served| served.name == *port);
                (!has_it).then(|| {
                    format!(
                        "Service {} has no TCP port of the name \"{port}\": name one that it has, \
                         or none for all",
                        service.name
                    )
                })
            }
            Self::Route(route) => {
                let rule = section?;
                let mut rules = route.rules.iter();
                let has_it = rules.any(|entry| entry.rule.name.as_ref() == Some(rule));
                // The rules of a route that is for no Service aren't known.
                (!has_it && !route.parents.is_empty()).then(|| {
                    format!(
                        "{} {} has no rule of the name \"{rule}\": name one that it has, or none \
                         for all",
                        route.kind, route.name
                    )
                })
            }
        }
    }
}

fn ports(service: &Option<Arc<Service>>) -> Option<Vec<&str>> {
    let ports = service.as_ref()?.ports.iter();
    Some(ports.map(|port| &*port.name).collect())
}

fn problem(policy: &TrafficPolicy, error: FieldError) -> ObjectProblem {
    ObjectProblem {
        object: ObjectKey {
            kind: Kind::TrafficPolicy,
            name: policy.name.clone(),
        },
        error,
    }
}
