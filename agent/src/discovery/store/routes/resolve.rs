//! Whether a route is attached to its parents, and whether what it refers to may be asked.

use std::sync::Arc;

use super::super::{ObjectProblem, Snapshot};
use crate::discovery::{
    facts::{GrantFacts, Kind, ObjectKey},
    model::{
        BackendTarget, Filters, InvalidBackend, ObjectName, Route, RouteEntry, RouteKind,
        RouteParent, RouteRule,
    },
    reduce::FieldError,
};

/// Why a route isn't attached to one of its parents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAttached {
    /// There is no such Service.
    #[error("there is no Service {0}: create it, or name another")]
    NoService(ObjectName),
    /// It has no address that clients could ask.
    #[error(
        "Service {0} has no address of its own (it is headless): routes are for those that have"
    )]
    Headless(ObjectName),
    /// It has no port that is named.
    #[error("Service {0} has no such TCP port: name one that it has, or none for all")]
    NoPort(ObjectName),
    /// Nobody would apply it.
    #[error(
        "Service {0} has no waypoint, and routes are applied by one: label it, or its namespace, with \
         ambit.dev/use-waypoint"
    )]
    NoWaypoint(ObjectName),
}

impl Snapshot {
    /// The ports that a route is attached to at one of its parents, whose requests a waypoint sees.
    ///
    /// # Errors
    /// Why no request comes by it.
    pub fn applies(&self, parent: &RouteParent) -> Result<Vec<u16>, NotAttached> {
        let ports = self.ports_of(parent)?;
        let service = self.service(&parent.service);
        match service.is_some_and(|service| service.waypoint.is_some()) {
            true => Ok(ports),
            false => Err(NotAttached::NoWaypoint(parent.service.clone())),
        }
    }

    /// The ports that a route is attached to at one of its parents.
    ///
    /// # Errors
    /// Why at none.
    pub(in crate::discovery::store) fn ports_of(
        &self,
        parent: &RouteParent,
    ) -> Result<Vec<u16>, NotAttached> {
        let name = &parent.service;
        let Some(service) = self.service(name) else {
            return Err(NotAttached::NoService(name.clone()));
        };
        if service.vips.is_empty() {
            return Err(NotAttached::Headless(name.clone()));
        }
        let ports = service.ports.iter().filter(|served| {
            parent.port.is_none_or(|port| port == served.port)
                && parent
                    .section
                    .as_ref()
                    .is_none_or(|name| *name == served.name)
        });
        let ports: Vec<u16> = ports.map(|served| served.port).collect();
        match ports.is_empty() {
            true => Err(NotAttached::NoPort(name.clone())),
            false => Ok(ports),
        }
    }

    /// The references of a route that requests can't be sent to, each with the path of its field.
    #[must_use]
    pub fn unresolved(&self, route: &Route) -> Vec<(String, InvalidBackend)> {
        let mut unresolved = Vec::new();
        for RouteEntry { rule, .. } in &route.rules {
            references(rule, |field, target| {
                if let Some(invalid) = self.invalid(route, target) {
                    unresolved.push((field, invalid));
                }
            });
        }
        unresolved
    }

    /// Why requests of a route can't be sent there.
    fn invalid(&self, route: &Route, target: &BackendTarget) -> Option<InvalidBackend> {
        let (name, port) = match target {
            BackendTarget::Invalid(invalid) => return Some(invalid.clone()),
            BackendTarget::Service { name, port } => (name, *port),
        };
        if !self.may_refer(route, name) {
            return Some(InvalidBackend::NotPermitted {
                service: name.clone(),
                from: route.kind,
                namespace: Arc::clone(&route.name.namespace),
            });
        }
        let service = name.clone();
        match self.service(name) {
            None => Some(InvalidBackend::NoService { service }),
            Some(found) if found.ports.iter().all(|served| served.port != port) => {
                Some(InvalidBackend::NoPort { service, port })
            }
            Some(_) => None,
        }
    }

    /// Within its namespace, within those of its parents (whose Services its clients ask for anyway), and
    /// where a ReferenceGrant allows it.
    fn may_refer(&self, route: &Route, service: &ObjectName) -> bool {
        let namespace = &service.namespace;
        let mut parents = route.parents.iter();
        let grants = self.grants.get(namespace);
        *namespace == route.name.namespace
            || parents.any(|parent| parent.service.namespace == *namespace)
            || grants.into_iter().flat_map(|it| it.values()).any(|grant| {
                let mut from = grant.from.iter();
                let mut to = grant.services.iter();
                from.any(|it| it.kind == route.kind && it.namespace == route.name.namespace)
                    && to.any(|to| to.as_ref().is_none_or(|to| *to == service.name))
            })
    }

    /// Notes what a ReferenceGrant says now, `None` if it has gone. Whether that is something new.
    pub(in crate::discovery::store) fn set_grant(
        &mut self,
        name: &ObjectName,
        grant: Option<GrantFacts>,
    ) -> bool {
        let mut of_namespace = self
            .grants
            .get(&name.namespace)
            .cloned()
            .unwrap_or_default();
        let before = match &grant {
            Some(facts) => of_namespace.insert(Arc::clone(&name.name), facts.clone()),
            None => of_namespace.remove(&name.name),
        };
        if before == grant {
            return false;
        }
        match of_namespace.is_empty() {
            true => self.grants.remove(&name.namespace),
            false => self
                .grants
                .insert(Arc::clone(&name.namespace), of_namespace),
        };
        true
    }
}

/// The route with references that can't be resolved marked so, and what is to be told of them.
pub(super) fn resolve(route: &Arc<Route>, snapshot: &Snapshot) -> (Arc<Route>, Vec<ObjectProblem>) {
    let unresolved = snapshot.unresolved(route);
    // Filters were told of when the route was read.
    let is_filter = |invalid: &InvalidBackend| matches!(invalid, InvalidBackend::Filter { .. });
    let new = unresolved.iter().filter(|(_, invalid)| !is_filter(invalid));
    let kind = match route.kind {
        RouteKind::Http => Kind::HTTPRoute,
        RouteKind::Grpc => Kind::GRPCRoute,
    };
    let effect = "until then requests that would go there are answered with an error";
    let references = new.map(|(field, invalid)| (field.clone(), format!("{invalid}; {effect}")));
    let parents = route.parents.iter().filter_map(|parent| {
        let error = snapshot.applies(parent).err()?;
        let field = format!("spec.parentRefs[{}]", parent.index);
        Some((
            field,
            format!("{error}; until then the route isn't applied there"),
        ))
    });
    let problem = |(field, reason): (String, String)| ObjectProblem {
        object: ObjectKey {
            kind,
            name: route.name.clone(),
        },
        error: FieldError::new(field, reason),
    };
    let problems = parents.chain(references).map(problem).collect();
    if unresolved.is_empty() {
        return (Arc::clone(route), problems);
    }
    let mut resolved = Route::clone(route);
    for RouteEntry { rule, .. } in &mut resolved.rules {
        let mark = |target: &mut BackendTarget| {
            if let Some(invalid) = snapshot.invalid(route, target) {
                *target = BackendTarget::Invalid(invalid);
            }
        };
        let rule = Arc::make_mut(rule);
        let mark_mirrors = |filters: &mut Filters| {
            let mirrors = filters.mirrors.iter_mut();
            mirrors.for_each(|mirror| mark(&mut mirror.target));
        };
        mark_mirrors(&mut rule.filters);
        for backend in &mut rule.backends {
            mark(&mut backend.target);
            mark_mirrors(&mut backend.filters);
        }
    }
    (Arc::new(resolved), problems)
}

/// Calls with every reference of a rule and the path of its field.
fn references(rule: &RouteRule, mut call: impl FnMut(String, &BackendTarget)) {
    let of_rule = format!("spec.rules[{}]", rule.index);
    // Filters of other types stand between them, which aren't counted any more.
    let mut mirrors = |field: &str, filters: &Filters| {
        for mirror in &filters.mirrors {
            call(format!("{field}.filters.requestMirror"), &mirror.target);
        }
    };
    mirrors(&of_rule, &rule.filters);
    for (index, backend) in rule.backends.iter().enumerate() {
        mirrors(&format!("{of_rule}.backendRefs[{index}]"), &backend.filters);
    }
    for (index, backend) in rule.backends.iter().enumerate() {
        call(format!("{of_rule}.backendRefs[{index}]"), &backend.target);
    }
}
