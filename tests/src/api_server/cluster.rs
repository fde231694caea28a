//! What there is before anybody made anything.

use serde_json::{Value, json};

use super::{directory, state::State};
use crate::Node;

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The objects that a new cluster has.
pub(super) fn populate(state: &mut State, nodes: &[Node]) {
    let namespaces = NAMESPACES.map(|name| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
            "status": { "phase": "Active" },
        })
    });
    let nodes = nodes.iter().map(|node| {
        let addresses = node.addresses().iter();
        let mut addresses: Vec<Value> = addresses
            .map(|address| json!({ "type": "InternalIP", "address": address }))
            .collect();
        addresses.push(json!({ "type": "Hostname", "address": node.name() }));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": node.name(),
                "labels": { "kubernetes.io/hostname": node.name(), "kubernetes.io/os": "linux" },
            },
            "spec": {},
            "status": {
                "addresses": addresses,
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    });
    for object in namespaces.into_iter().chain(nodes) {
        if let Some(key) = directory::key(&object) {
            state.storage.put(&key, object);
        }
    }
}
