//! Policies by what they are attached to.

use std::sync::Arc;

use imbl::{HashMap, OrdMap};

use crate::{
    discovery::model::{ObjectName, WAYPOINT_CLASS},
    policy::model::{TargetKind, TargetReference},
};

/// Which waypoint, and which service it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaypointScope<'a> {
    /// The waypoint's Gateway.
    pub gateway: &'a ObjectName,
    /// The service that was asked for; `None` where that is a workload.
    pub service: Option<&'a ObjectName>,
}

/// Policies of one kind, by each of their `targetRefs`.
#[derive(Debug)]
pub(super) struct Attached<T> {
    gateways: HashMap<ObjectName, ByName<T>>,
    services: HashMap<ObjectName, ByName<T>>,
    class: ByName<T>,
}

type ByName<T> = OrdMap<ObjectName, Arc<T>>;

impl<T> Clone for Attached<T> {
    fn clone(&self) -> Self {
        Self {
            gateways: self.gateways.clone(),
            services: self.services.clone(),
            class: self.class.clone(),
        }
    }
}

impl<T> Default for Attached<T> {
    fn default() -> Self {
        Self {
            gateways: HashMap::new(),
            services: HashMap::new(),
            class: OrdMap::new(),
        }
    }
}

impl<T> Attached<T> {
    pub(super) fn insert(
        &mut self,
        name: &ObjectName,
        references: &[TargetReference],
        is_root: bool,
        policy: &Arc<T>,
    ) {
        for reference in references {
            match self.of(name, reference) {
                Place::Of(targets, target) => {
                    let policies = targets.entry(target).or_default();
                    policies.insert(name.clone(), policy.clone());
                }
                Place::Class(policies) if is_root && *reference.name == *WAYPOINT_CLASS => {
                    policies.insert(name.clone(), policy.clone());
                }
                Place::Class(_) => {}
            }
        }
    }

    pub(super) fn remove(&mut self, name: &ObjectName, references: &[TargetReference]) {
        for reference in references {
            match self.of(name, reference) {
                Place::Of(targets, target) => {
                    let Some(policies) = targets.get_mut(&target) else {
                        continue;
                    };
                    policies.remove(name);
                    if policies.is_empty() {
                        targets.remove(&target);
                    }
                }
                Place::Class(policies) => {
                    policies.remove(name);
                }
            }
        }
    }

    /// Those that are for a waypoint or the service: of the class first, each by name.
    pub(super) fn at<'a>(&'a self, scope: &WaypointScope<'_>) -> impl Iterator<Item = &'a Arc<T>> {
        let gateway = self.gateways.get(scope.gateway);
        let service = scope.service.and_then(|name| self.services.get(name));
        let named = [gateway, service].into_iter().flatten();
        std::iter::once(&self.class)
            .chain(named)
            .flat_map(OrdMap::values)
    }

    fn of(&mut self, policy: &ObjectName, reference: &TargetReference) -> Place<'_, T> {
        let target = ObjectName {
            namespace: policy.namespace.clone(),
            name: reference.name.clone(),
        };
        match reference.kind {
            TargetKind::Gateway => Place::Of(&mut self.gateways, target),
            TargetKind::Service => Place::Of(&mut self.services, target),
            TargetKind::GatewayClass => Place::Class(&mut self.class),
        }
    }
}

/// Where a reference leads.
enum Place<'a, T> {
    Of(&'a mut HashMap<ObjectName, ByName<T>>, ObjectName),
    Class(&'a mut ByName<T>),
}
