//! The identities that both sides of a connection saw.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{
    nginx,
    stage::{Stage, identity},
};

/// How long a line of the access log may take after the connection's end.
const LOGGED: Duration = Duration::from_secs(20);

/// Both agents count and log the client and the server by their SPIFFE IDs.
pub(super) fn known_to_both(stage: &mut Stage<'_>) -> Result<String> {
    nginx::ask(&stage.frontend, &stage.catalog, &stage.marker)?;
    let (client, server) = (identity(&stage.frontend), identity(&stage.catalog.pod));
    let mut detail = format!("{client} -> {server}");
    for (node, reporter, direction) in
        [("a", "source", "outbound"), ("b", "destination", "inbound")]
    {
        let labels = [
            ("reporter", reporter),
            ("source_principal", &client),
            ("destination_principal", &server),
        ];
        let name = "istio_tcp_connections_opened_total";
        let opened = stage.lab.node(node).metric(name, &labels)?;
        ensure!(
            opened > 0.0,
            "node {node} counts no connection from {client} to {server}"
        );

        let said = [
            format!("src.identity={client} "),
            format!("dst.identity={server} "),
            format!("direction=\"{direction}\""),
        ];
        let line = stage
            .mesh
            .agent(node)
            .await_stderr(LOGGED, |line| {
                said.iter().all(|said| line.contains(said.as_str()))
            })
            .with_context(|| format!("the access log of node {node} has no {said:?}"))?;
        detail += &format!("\nnode {node} logs: {line}");
    }
    Ok(detail)
}
