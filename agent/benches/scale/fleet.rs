//! A made-up cluster of the asked size, as the Kubernetes API would tell it.
//!
//! A thousand nodes. A namespace has 100 pods: 10 Deployments of 10 pods, each with a service
//! account, a Service and an EndpointSlice of its own; and one AuthorizationPolicy.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ambit::{
    discovery::{
        facts::{Kind, Object, ObjectKey},
        manifest::{self, Format},
        model::ObjectName,
        reduce::Reducer,
        store::{Change, Store},
    },
    identity::Identity,
};
use serde_json::{Value, json};

pub(crate) const NODES: usize = 1_000;
const PODS_OF_NAMESPACE: usize = 100;
const REPLICAS: usize = 10;
/// As many as the control plane puts in one slice by default.
const ENDPOINTS_OF_SLICE: usize = 100;

/// Turns JSON objects into changes; equal parts are shared as in an agent.
pub(crate) struct Fleet {
    reducer: Reducer,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self {
            reducer: Reducer::new("cluster.local"),
        }
    }

    pub(crate) fn upsert(&mut self, object: &Value) -> Change {
        let parsed = manifest::parse(&object.to_string(), Format::Json, &mut self.reducer);
        let mut parsed = parsed.expect("the JSON is well-formed");
        assert_eq!(parsed.errors, [], "{object}");
        let parsed = parsed.objects.pop().expect("the kind is one of the mesh");
        Change::Upsert(parsed.object)
    }

    /// Pods and the namespaces that enrol them.
    pub(crate) fn pods(&mut self, workloads: usize) -> Vec<Change> {
        let namespaces = 0..workloads.div_ceil(PODS_OF_NAMESPACE);
        let namespaces: Vec<_> = namespaces
            .map(|number| self.upsert(&namespace(&namespace_name(number), true)))
            .collect();
        let pods = (0..workloads).map(|number| self.upsert(&pod(number, "a1b2c3")));
        namespaces.into_iter().chain(pods).collect()
    }

    /// A Service with its slice for each Deployment.
    pub(crate) fn services(&mut self, workloads: usize) -> Vec<Change> {
        (0..workloads / REPLICAS)
            .flat_map(|number| {
                let first = number * REPLICAS;
                let (namespace, name) = (namespace_of(first), deployment_of(first));
                let name = (namespace.as_str(), name.as_str());
                let endpoints = (first..first + REPLICAS).map(endpoint).collect();
                [
                    self.upsert(&service(name, address(11, number))),
                    self.upsert(&slice(name, 0, endpoints)),
                ]
            })
            .collect()
    }

    /// One AuthorizationPolicy a namespace, for two callers.
    pub(crate) fn policies(&mut self, workloads: usize) -> Vec<Change> {
        (0..workloads / PODS_OF_NAMESPACE)
            .map(|number| self.upsert(&policy(&namespace_name(number), "caller")))
            .collect()
    }

    /// The slices of a Service of its own with so many endpoints, and the Service.
    pub(crate) fn large_service(&mut self, endpoints: usize) -> Vec<Change> {
        let name = format!("large-{endpoints}");
        let name = ("large", name.as_str());
        let mut changes = vec![self.upsert(&service(name, address(12, endpoints)))];
        for number in 0..endpoints.div_ceil(ENDPOINTS_OF_SLICE) {
            changes.push(self.large_slice(endpoints, number, true));
        }
        changes
    }

    /// One of its slices; the first endpoint in it is ready or missing.
    pub(crate) fn large_slice(&mut self, endpoints: usize, number: usize, whole: bool) -> Change {
        let name = format!("large-{endpoints}");
        let first = number * ENDPOINTS_OF_SLICE;
        let numbers = first..(first + ENDPOINTS_OF_SLICE).min(endpoints);
        let endpoints = numbers.skip(usize::from(!whole)).map(endpoint).collect();
        self.upsert(&slice(("large", &name), number, endpoints))
    }
}

/// A store that knows all of it.
pub(crate) fn store(workloads: usize) -> Store {
    let (store, mut fleet) = (Store::default(), Fleet::new());
    store.apply(fleet.pods(workloads));
    store.apply(fleet.services(workloads));
    store.apply(fleet.policies(workloads));
    store
}

pub(crate) fn remove(change: &Change) -> Change {
    let Change::Upsert(Object::Pod(facts)) = change else {
        panic!("{change:?} is no pod");
    };
    Change::Remove(ObjectKey {
        kind: Kind::Pod,
        name: ObjectName::clone(&facts.workload.name),
    })
}

pub(crate) fn node(number: usize) -> String {
    let number = number % NODES;
    format!("ip-10-0-{}-{}.ec2.internal", number / 250, number % 250)
}

/// The identity of a pod.
pub(crate) fn identity(number: usize) -> Identity {
    Identity::new("cluster.local", namespace_of(number), deployment_of(number))
}

fn namespace_name(number: usize) -> String {
    format!("team-{number}")
}

fn namespace_of(pod: usize) -> String {
    namespace_name(pod / PODS_OF_NAMESPACE)
}

fn deployment_of(pod: usize) -> String {
    format!(
        "service-{}",
        pod / REPLICAS % (PODS_OF_NAMESPACE / REPLICAS)
    )
}

/// Distinct for 2^24 numbers of a network.
fn address(network: u8, number: usize) -> Ipv4Addr {
    let [.., b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(network, b, c, d)
}

pub(crate) fn namespace(name: &str, enrolled: bool) -> Value {
    let label = if enrolled { "enabled" } else { "disabled" };
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"ambit.dev/mesh": label}},
    })
}

/// A pod as a Deployment makes it; `template` is the hash of its pod template.
pub(crate) fn pod(number: usize, template: &str) -> Value {
    let (namespace, deployment) = (namespace_of(number), deployment_of(number));
    let host = address(172, number % NODES);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": format!("{deployment}-7f9c8b6d5c-{number:05}"),
            "uid": format!("0b7f3d52-6c1e-4a55-9d3c-{number:012}"),
            "labels": {
                "app": deployment, "version": "v1", "pod-template-hash": template,
                "app.kubernetes.io/part-of": namespace,
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "uid": "u",
                "name": format!("{deployment}-7f9c8b6d5c"),
            }],
        },
        "spec": {
            "nodeName": node(number), "serviceAccountName": deployment,
            "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
            "podIP": address(10, number), "podIPs": [{"ip": address(10, number)}],
            "hostIP": host, "hostIPs": [{"ip": host}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn service((namespace, name): (&str, &str), vip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "clusterIP": vip, "clusterIPs": [vip], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    })
}

fn slice((namespace, service): (&str, &str), number: usize, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-{number:05}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn endpoint(pod: usize) -> Value {
    json!({
        "addresses": [address(10, pod)], "nodeName": node(pod),
        "conditions": {"ready": true, "serving": true, "terminating": false},
    })
}

/// ALLOW for two principals, one of them `caller`.
pub(crate) fn policy(namespace: &str, caller: &str) -> Value {
    let principal = |account| format!("cluster.local/ns/{namespace}/sa/{account}");
    let principals = [principal("frontend"), principal(caller)];
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": namespace, "name": "callers"},
        "spec": {
            "selector": {"matchLabels": BTreeMap::from([("app", "service-1")])},
            "action": "ALLOW",
            "rules": [{
                "from": [{"source": {"principals": principals}}],
                "to": [{"operation": {"ports": ["8080"]}}],
            }],
        },
    })
}
