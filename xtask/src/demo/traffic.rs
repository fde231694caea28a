//! Requests of one pod to another, through the mesh.

use anyhow::{Context, Result, ensure};
use lab::{Node, Pod};

use super::{
    nginx::{self, Server},
    stage::{Stage, identity},
};

/// From a pod of one node to nginx on the other.
pub(super) fn across_nodes(stage: &mut Stage<'_>) -> Result<String> {
    carried(
        stage.lab.node("b"),
        &stage.frontend,
        &stage.catalog,
        &stage.marker,
    )
}

/// From a pod to nginx on its own node; nothing of it may leave the node.
pub(super) fn on_one_node(stage: &mut Stage<'_>) -> Result<String> {
    let told = carried(
        stage.lab.node("a"),
        &stage.frontend,
        &stage.cart,
        &stage.marker,
    )?;
    let packets = stage.wire.packets()?;
    let server = stage.cart.pod.addresses();
    let escaped = packets
        .iter()
        .find(|packet| server.iter().any(|own| packet.has_address(*own)));
    ensure!(
        escaped.is_none(),
        "{:?} was on the wire",
        escaped.map(ToString::to_string)
    );
    Ok(format!("{told}; no packet of it left the node"))
}

/// Has a pod ask a server, and makes sure that the agent of the server's node carried it.
fn carried(node: &Node, client: &Pod, server: &Server, marker: &str) -> Result<String> {
    let before = opened(node, client, &server.pod)?;
    let requests = nginx::ask(client, server, marker)?;
    let carried = opened(node, client, &server.pod)? - before;
    ensure!(
        carried >= requests as f64,
        "the answers are right, but the agent of node {} carried {carried} of {requests} \
         connections",
        node.name()
    );
    let own = client.address();
    Ok(format!(
        "{} got 200 from {}, which saw the client as {own}",
        client.name(),
        server.pod.name()
    ))
}

/// Connections that the agent of the server's node has carried from one identity to another.
fn opened(node: &Node, client: &Pod, server: &Pod) -> Result<f64> {
    let labels = [
        ("reporter", "destination"),
        ("source_principal", &identity(client)),
        ("destination_principal", &identity(server)),
        ("connection_security_policy", "mutual_tls"),
    ];
    node.metric("istio_tcp_connections_opened_total", &labels)
        .with_context(|| format!("metrics of node {}", node.name()))
}
