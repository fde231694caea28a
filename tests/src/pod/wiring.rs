//! The `ip` commands that connect a pod to its node.

use std::net::IpAddr;

use super::{INTERFACE, ScheduledPod};
use crate::{
    PodNetwork,
    node::address,
    plan::{BRIDGE, ROUTED_GATEWAY_V4, host_length},
};

impl ScheduledPod {
    /// For the node: the pod's veth, and the way to its addresses.
    pub(super) fn node_commands(&self) -> Vec<String> {
        let host = &self.host_interface;
        let mut commands = Vec::new();
        if self.node.shared.network == PodNetwork::Bridged {
            commands.push(format!("link set {host} master {BRIDGE}"));
            // Without it a pod can't reach itself through a service.
            commands.push(format!("link set {host} type bridge_slave hairpin on"));
        }
        commands.push(format!("link set {host} up"));
        if self.node.shared.network == PodNetwork::Routed {
            for gateway in self.node.gateways() {
                commands.push(if gateway == ROUTED_GATEWAY_V4 {
                    format!("address add {gateway}/32 dev {host} scope link")
                } else {
                    address(&format!("{gateway}/64"), host, gateway)
                });
            }
            for pod in &self.addresses {
                // What the node itself sends to the pod comes from the node's address.
                let source = self
                    .node
                    .addresses()
                    .iter()
                    .find(|a| a.is_ipv4() == pod.is_ipv4());
                let source = source
                    .map(|address| format!(" src {address}"))
                    .unwrap_or_default();
                commands.push(format!(
                    "route add {pod}/{} dev {host}{source}",
                    host_length(*pod)
                ));
            }
        }
        commands
    }

    /// For the pod: its addresses, and the way out.
    pub(super) fn pod_commands(&self) -> Vec<String> {
        let mut commands = vec!["link set lo up".into()];
        for own in &self.addresses {
            let length = match (self.node.shared.network, own) {
                (PodNetwork::Routed, own) => host_length(*own),
                (PodNetwork::Bridged, IpAddr::V4(_)) => 24,
                (PodNetwork::Bridged, IpAddr::V6(_)) => 64,
            };
            commands.push(address(&format!("{own}/{length}"), INTERFACE, *own));
        }
        commands.push(format!("link set {INTERFACE} up"));
        for gateway in self.node.gateways() {
            if self
                .addresses
                .iter()
                .any(|own| own.is_ipv4() == gateway.is_ipv4())
            {
                // onlink: a routed pod's network is itself alone.
                let all = if gateway.is_ipv4() {
                    "0.0.0.0/0"
                } else {
                    "::/0"
                };
                commands.push(format!(
                    "route add {all} via {gateway} dev {INTERFACE} onlink"
                ));
            }
        }
        commands.push(format!("link show dev {INTERFACE}"));
        commands
    }
}
