//! Waypoints: Gateways and labels of namespaces, joined with where they run.
//!
//! There are some for each namespace at most, so all are looked at whenever one may have changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;

use super::{Change, ServiceChange, Snapshot, Touched, pods::PodIndex};
use crate::discovery::{
    facts::{GatewayFacts, Kind, Object, ObjectKey, WaypointFacts},
    model::{Endpoint, ObjectName, Service, WAYPOINT_CLASS, Waypoint, WaypointPlace},
    reduce::FieldError,
};

/// The port of a waypoint's Service that leads to HBONE.
const SERVICE_PORT: &str = "hbone";
/// Ports in a row that a waypoint takes on a node: HBONE, metrics, readiness.
const PORTS: u16 = 3;

/// Where waypoints run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// In pods, which somebody makes of Gateways.
    #[default]
    Pods,
    /// On nodes, as children of their agents.
    Nodes,
}

/// What is wrong with an object in the light of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectProblem {
    /// The object.
    pub object: ObjectKey,
    /// The field, and the cure.
    pub error: FieldError,
}

/// All Gateways, and all that name one.
#[derive(Debug, Default)]
pub(super) struct WaypointIndex {
    pub(super) placement: Placement,
    gateways: BTreeMap<ObjectName, GatewayFacts>,
    /// By the namespace whose label makes it.
    made: BTreeMap<Arc<str>, WaypointFacts>,
    /// Of Node objects, with their addresses.
    nodes: BTreeMap<Arc<str>, Vec<IpAddr>>,
    names: HashMap<ObjectKey, Arc<ObjectName>>,
    named_by: BTreeMap<ObjectName, BTreeSet<ObjectKey>>,
}

/// Where a waypoint is, and why nowhere.
type Found = (WaypointPlace, Vec<Endpoint>, Option<FieldError>);

impl WaypointIndex {
    /// Takes from a change what matters here. Whether anything did.
    pub(super) fn change(&mut self, change: &Change) -> bool {
        match change {
            Change::Upsert(Object::Gateway(facts)) => {
                let before = self.gateways.insert(facts.name.clone(), facts.clone());
                before.as_ref() != Some(facts)
            }
            Change::Upsert(Object::Namespace(facts)) => {
                let key = key(Kind::Namespace, "", &facts.name);
                let named = self.name(key, facts.waypoint.named());
                let made = match &facts.makes_waypoint {
                    Some(made) => self.made.insert(Arc::clone(&facts.name), made.clone()),
                    None => self.made.remove(&facts.name),
                };
                named || made != facts.makes_waypoint
            }
            Change::Upsert(Object::Node(facts)) => {
                let before = self
                    .nodes
                    .insert(Arc::clone(&facts.name), facts.addresses.clone());
                before.as_ref() != Some(&facts.addresses)
            }
            Change::Upsert(Object::Pod(facts)) => {
                let name = &facts.workload.name;
                let key = key(Kind::Pod, &name.namespace, &name.name);
                self.name(key, facts.waypoint.named().filter(|_| !facts.ended))
            }
            Change::Upsert(Object::Service(facts)) => {
                let key = key(Kind::Service, &facts.name.namespace, &facts.name.name);
                self.name(key, facts.waypoint.named())
            }
            Change::Upsert(_) => false,
            Change::Remove(key) => match key.kind {
                Kind::Gateway => self.gateways.remove(&key.name).is_some(),
                Kind::Namespace => {
                    let made = self.made.remove(&key.name.name).is_some();
                    self.name(key.clone(), None) || made
                }
                Kind::Node => self.nodes.remove(&key.name.name).is_some(),
                Kind::Pod | Kind::Service => self.name(key.clone(), None),
                _ => false,
            },
        }
    }

    /// Whether what was touched may have changed a waypoint.
    pub(super) fn is_touched(&self, touched: &Touched) -> bool {
        if touched.waypoints {
            return true;
        }
        match self.placement {
            Placement::Pods => touched
                .services
                .iter()
                .any(|name| self.facts(name).is_some()),
            // Pods tell of their nodes.
            Placement::Nodes => {
                let are_there = !self.gateways.is_empty() || !self.made.is_empty();
                are_there && !touched.pods.is_empty()
            }
        }
    }

    /// All waypoints, and what is wrong.
    pub(super) fn assemble(
        &self,
        snapshot: &Snapshot,
        pods: &PodIndex,
    ) -> (OrdMap<ObjectName, Arc<Waypoint>>, Arc<[ObjectProblem]>) {
        let mut waypoints = OrdMap::new();
        let mut problems = Vec::new();
        let mut taken = HashMap::new();
        let nodes = match self.placement {
            Placement::Pods => BTreeMap::new(),
            Placement::Nodes => self.known_nodes(pods),
        };
        for facts in self.all() {
            let (place, endpoints, error) = match self.placement {
                Placement::Pods => (WaypointPlace::Pods, endpoints(snapshot, &facts.name), None),
                Placement::Nodes => on_node(facts, &nodes, &mut taken),
            };
            problems.extend(error.map(|error| ObjectProblem {
                object: self.origin(&facts.name),
                error,
            }));
            let waypoint = Waypoint {
                name: facts.name.clone(),
                uid: facts.uid.clone(),
                identity: facts.identity.clone(),
                serves: facts.serves,
                place,
                endpoints: endpoints.into(),
            };
            let waypoint = match snapshot.waypoint(&facts.name) {
                Some(before) if **before == waypoint => Arc::clone(before),
                _ => Arc::new(waypoint),
            };
            waypoints.insert(facts.name.clone(), waypoint);
        }
        for (name, objects) in &self.named_by {
            if self.facts(name).is_none() {
                let reason = self.why_not(name);
                let told = objects.iter().map(|object| ObjectProblem {
                    object: object.clone(),
                    error: FieldError::new("metadata.labels", reason.clone()),
                });
                problems.extend(told);
            }
        }
        (waypoints, problems.into())
    }

    /// Notes which Gateway an object names. Whether that is another than before.
    fn name(&mut self, key: ObjectKey, named: Option<&Arc<ObjectName>>) -> bool {
        let before = match named {
            Some(named) => self.names.insert(key.clone(), Arc::clone(named)),
            None => self.names.remove(&key),
        };
        if before.as_ref() == named {
            return false;
        }
        if let Some(before) = before
            && let Some(objects) = self.named_by.get_mut(&*before)
        {
            objects.remove(&key);
            if objects.is_empty() {
                self.named_by.remove(&*before);
            }
        }
        if let Some(named) = named {
            let name = ObjectName::clone(named);
            self.named_by.entry(name).or_default().insert(key);
        }
        true
    }

    /// Every waypoint by name. A Gateway goes before what a label makes.
    fn all(&self) -> impl Iterator<Item = &WaypointFacts> {
        let own = self.gateways.values();
        let own = own.filter_map(|gateway| gateway.waypoint.as_ref());
        let made = self.made.values();
        let made = made.filter(|facts| !self.gateways.contains_key(&facts.name));
        let all: BTreeMap<_, _> = own.chain(made).map(|facts| (&facts.name, facts)).collect();
        all.into_values()
    }

    fn facts(&self, name: &ObjectName) -> Option<&WaypointFacts> {
        match self.gateways.get(name) {
            Some(gateway) => gateway.waypoint.as_ref(),
            None => {
                let made = self.made.get(&name.namespace)?;
                (made.name == *name).then_some(made)
            }
        }
    }

    /// The object that a waypoint follows from.
    fn origin(&self, name: &ObjectName) -> ObjectKey {
        if self.gateways.contains_key(name) {
            key(Kind::Gateway, &name.namespace, &name.name)
        } else {
            key(Kind::Namespace, "", &name.namespace)
        }
    }

    fn why_not(&self, name: &ObjectName) -> String {
        let effect = "connections go there without a waypoint";
        match self.gateways.get(name) {
            Some(gateway) => format!(
                "use-waypoint: Gateway {name} is of class \"{}\", not \"{WAYPOINT_CLASS}\": {effect}",
                gateway.class
            ),
            None => format!(
                "use-waypoint: there is no Gateway {name}: {effect}; create it with gatewayClassName \
                 \"{WAYPOINT_CLASS}\", or name another"
            ),
        }
    }

    /// Nodes by name, with their addresses: those that there are objects of, or else those that pods
    /// run on.
    fn known_nodes(&self, pods: &PodIndex) -> BTreeMap<Arc<str>, Vec<IpAddr>> {
        let mut nodes = self.nodes.clone();
        let has_objects = !nodes.is_empty();
        for (name, addresses) in pods.nodes() {
            match nodes.get_mut(name) {
                Some(known) if known.is_empty() => *known = addresses.to_vec(),
                None if !has_objects => drop(nodes.insert(Arc::clone(name), addresses.to_vec())),
                _ => {}
            }
        }
        nodes
    }
}

/// Whether a service uses another waypoint than before.
pub(super) fn uses_another(services: &[ServiceChange]) -> bool {
    let used = |service: &Option<Arc<Service>>| service.as_ref().and_then(|it| it.waypoint.clone());
    services
        .iter()
        .any(|change| used(&change.before) != used(&change.after))
}

/// The ready endpoints of the Service of its name.
fn endpoints(snapshot: &Snapshot, name: &ObjectName) -> Vec<Endpoint> {
    let service = snapshot.service(name);
    let all = service.into_iter().flat_map(|it| it.endpoints.iter());
    all.filter(|endpoint| *endpoint.port_name == *SERVICE_PORT)
        .cloned()
        .collect()
}

/// On the node that it asks for, or on the first; one of each port.
fn on_node<'a>(
    facts: &'a WaypointFacts,
    nodes: &BTreeMap<Arc<str>, Vec<IpAddr>>,
    taken: &mut HashMap<Arc<str>, BTreeMap<u16, &'a ObjectName>>,
) -> Found {
    const NODE: &str = "metadata.annotations[ambit.dev/waypoint-node]";
    const PORT: &str = "metadata.annotations[ambit.dev/waypoint-port]";
    let asked = match &facts.node {
        Some(asked) => nodes.get_key_value(asked),
        None => nodes.first_key_value(),
    };
    let nowhere = |node: Option<&Arc<str>>, field: &str, reason: String| {
        let place = WaypointPlace::Node(node.cloned());
        (place, Vec::new(), Some(FieldError::new(field, reason)))
    };
    let Some((node, addresses)) = asked else {
        let reason = match &facts.node {
            Some(asked) => format!("there is no Node {asked}, and no pod on one: name another"),
            None => "no Node is known that the waypoint could run on: write one".to_owned(),
        };
        return nowhere(None, NODE, reason);
    };
    if addresses.is_empty() {
        let reason = format!(
            "no address of node {node} is known: write it into status.addresses of Node {node}"
        );
        return nowhere(None, NODE, reason);
    }
    let ports = facts.port..=facts.port.saturating_add(PORTS - 1);
    let of_node = taken.entry(Arc::clone(node)).or_default();
    if let Some(first) = ports.clone().find_map(|port| of_node.get(&port)) {
        let reason = format!(
            "ports {} to {} of node {node} are asked for (HBONE, metrics, readiness), and waypoint \
             {first} has one of them: choose another port or node",
            ports.start(),
            ports.end()
        );
        return nowhere(None, PORT, reason);
    }
    of_node.extend(ports.map(|port| (port, &facts.name)));
    let endpoints = addresses.iter();
    let endpoints = endpoints.map(|address| Endpoint {
        port_name: SERVICE_PORT.into(),
        address: *address,
        port: facts.port,
        node: Some(Arc::clone(node)),
        zone: None,
    });
    (
        WaypointPlace::Node(Some(Arc::clone(node))),
        endpoints.collect(),
        None,
    )
}

fn key(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        name: ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        },
    }
}
