//! Routes joined with the Services that they are for and refer to.
//!
//! A change costs the routes that it touches, and the tables of the Services that those are for.

mod resolve;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::resolve::NotAttached;
use self::resolve::resolve;
use super::{ObjectProblem, ServiceChange, Snapshot};
use crate::discovery::model::{
    Attached, BackendTarget, ObjectName, Route, RouteKind, RouteTable, Service, ServicePort,
};

type RouteKey = (RouteKind, ObjectName);

/// All routes and grants, and what has to be looked at again.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    routes: BTreeMap<RouteKey, Entry>,
    /// The routes that a Service is parent of.
    by_parent: BTreeMap<ObjectName, BTreeSet<RouteKey>>,
    /// The routes that refer to a Service.
    by_target: BTreeMap<ObjectName, BTreeSet<RouteKey>>,
    problems: BTreeMap<RouteKey, Vec<ObjectProblem>>,
    touched_routes: BTreeSet<RouteKey>,
    touched_services: BTreeSet<ObjectName>,
}

#[derive(Debug)]
struct Entry {
    /// As it was read.
    read: Arc<Route>,
    /// With its references as they are resolved.
    resolved: Arc<Route>,
}

impl ServiceChange {
    /// Whether it is another Service to routes: endpoints come and go, and don't matter.
    #[must_use]
    pub fn concerns_routes(&self) -> bool {
        seen_by_routes(&self.before) != seen_by_routes(&self.after)
    }
}

impl RouteIndex {
    pub(super) fn insert(&mut self, route: Route) {
        let key = (route.kind, route.name.clone());
        if self.routes.get(&key).is_some_and(|it| *it.read == route) {
            return;
        }
        self.unlink(&key);
        for parent in &route.parents {
            let routes = self.by_parent.entry(parent.service.clone()).or_default();
            routes.insert(key.clone());
        }
        for target in targets(&route) {
            let routes = self.by_target.entry(target.clone()).or_default();
            routes.insert(key.clone());
        }
        let read = Arc::new(route);
        let resolved = Arc::clone(&read);
        self.routes.insert(key.clone(), Entry { read, resolved });
        self.touched_routes.insert(key);
    }

    /// A route as it was read.
    pub(super) fn read(&self, kind: RouteKind, name: &ObjectName) -> Option<&Route> {
        let entry = self.routes.get(&(kind, name.clone()))?;
        Some(&entry.read)
    }

    pub(super) fn remove(&mut self, kind: RouteKind, name: &ObjectName) {
        let key = (kind, name.clone());
        self.unlink(&key);
        self.routes.remove(&key);
        self.touched_routes.insert(key);
    }

    /// Notes that other routes than before may refer to the Services of a namespace.
    pub(super) fn grants_changed(&mut self, namespace: &Arc<str>) {
        let first = ObjectName {
            namespace: Arc::clone(namespace),
            name: "".into(),
        };
        let services = self.by_target.range(first..);
        let services = services.take_while(|(service, _)| service.namespace == *namespace);
        let routes = services.flat_map(|(_, routes)| routes.iter().cloned());
        self.touched_routes.extend(routes);
    }

    /// Brings the tables of the snapshot up to date. Whether any changed.
    pub(super) fn settle(&mut self, next: &mut Snapshot, services: &[ServiceChange]) -> bool {
        for change in services.iter().filter(|it| it.concerns_routes()) {
            let service = change.before.as_ref().or(change.after.as_ref());
            if let Some(Service { name, .. }) = service.map(AsRef::as_ref) {
                let parents = self.by_parent.get(name).into_iter().flatten();
                let targets = self.by_target.get(name).into_iter().flatten();
                self.touched_routes.extend(parents.chain(targets).cloned());
            }
        }
        if self.touched_routes.is_empty() && self.touched_services.is_empty() {
            return false;
        }
        for key in std::mem::take(&mut self.touched_routes) {
            self.problems.remove(&key);
            let Some(entry) = self.routes.get_mut(&key) else {
                continue;
            };
            let (resolved, problems) = resolve(&entry.read, next);
            entry.resolved = resolved;
            let parents = entry.read.parents.iter();
            self.touched_services
                .extend(parents.map(|parent| parent.service.clone()));
            if !problems.is_empty() {
                self.problems.insert(key, problems);
            }
        }
        let mut changed = false;
        for service in std::mem::take(&mut self.touched_services) {
            let table = self.table(&service, next);
            changed |= next.set_routes(&service, table);
        }
        let problems = self.problems.values().flatten();
        if !problems.clone().eq(next.route_problems.iter()) {
            next.route_problems = problems.cloned().collect();
            changed = true;
        }
        changed
    }

    fn table(&self, service: &ObjectName, snapshot: &Snapshot) -> Option<RouteTable> {
        let keys = self.by_parent.get(service)?;
        let mut all = Vec::new();
        for key in keys {
            let Some(Entry { resolved, .. }) = self.routes.get(key) else {
                continue;
            };
            let parents = resolved.parents.iter();
            let mut ports = BTreeSet::new();
            for parent in parents.filter(|parent| parent.service == *service) {
                ports.extend(snapshot.ports_of(parent).unwrap_or_default());
            }
            all.extend(ports.into_iter().map(|port| Attached {
                port,
                route: resolved,
            }));
        }
        (!all.is_empty()).then(|| RouteTable::compile(&service.namespace, all))
    }

    fn unlink(&mut self, key: &RouteKey) {
        let Some(Entry { read, .. }) = self.routes.get(key) else {
            return;
        };
        let parents: BTreeSet<_> = read.parents.iter().map(|it| it.service.clone()).collect();
        for service in &parents {
            take_out(&mut self.by_parent, service, key);
        }
        for target in targets(read) {
            take_out(&mut self.by_target, target, key);
        }
        self.touched_services.extend(parents);
    }
}

/// The Services that a route refers to.
fn targets(route: &Route) -> BTreeSet<&ObjectName> {
    let rules = route.rules.iter().map(|entry| &entry.rule);
    let all = rules.flat_map(|rule| {
        let backends = rule.backends.iter();
        let filters = backends.clone().map(|backend| &backend.filters);
        let mirrors = filters.chain([&rule.filters]).flat_map(|it| &it.mirrors);
        let mirrors = mirrors.map(|mirror| &mirror.target);
        backends.map(|backend| &backend.target).chain(mirrors)
    });
    all.filter_map(|target| match target {
        BackendTarget::Service { name, .. } => Some(name),
        BackendTarget::Invalid(_) => None,
    })
    .collect()
}

/// What routes see of a Service: ports, and whether it has an address and a waypoint.
fn seen_by_routes(service: &Option<Arc<Service>>) -> Option<(&[ServicePort], bool, bool)> {
    let service = service.as_ref()?;
    let has_address = !service.vips.is_empty();
    Some((&service.ports, has_address, service.waypoint.is_some()))
}

fn take_out(
    map: &mut BTreeMap<ObjectName, BTreeSet<RouteKey>>,
    service: &ObjectName,
    key: &RouteKey,
) {
    if let Some(routes) = map.get_mut(service) {
        routes.remove(key);
        if routes.is_empty() {
            map.remove(service);
        }
    }
}
