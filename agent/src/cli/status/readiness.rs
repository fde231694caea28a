//! `ambit status --readiness`: whether a namespace is ready for STRICT.

use anyhow::Result;

use crate::{
    admin::{PlaintextClientView, PlaintextView},
    cli::{
        operator::Ask,
        table::{Table, known, span},
    },
};

pub(super) async fn run(ask: &Ask) -> Result<()> {
    let view: PlaintextView = ask.agent().ask("plaintext").await?;
    ask.show(&view, text)
}

fn text(view: &PlaintextView) -> String {
    let PlaintextView {
        node,
        clients,
        left_out,
        ..
    } = view;
    let watched = span(view.watched_seconds);
    let everywhere =
        "Ask every node, and let its agent run for as long as the rarest client takes.";
    if clients.is_empty() {
        return format!(
            "No client has spoken plaintext to a pod of node {node} for {watched}: STRICT would break nobody \
             here.\n{everywhere}\n"
        );
    }
    let rows = clients.iter().map(row);
    let headers = [
        "POD",
        "PORT",
        "MODE",
        "CLIENT",
        "ADDRESS",
        "CONNECTIONS",
        "LAST",
        "CURE",
    ];
    let more = match left_out {
        0 => String::new(),
        count => format!("{count} connections of further clients aren't shown.\n"),
    };
    format!(
        "Plaintext to pods of node {node} for {watched}; STRICT would break (or breaks) these clients:\n\n\
         {}{more}\n{everywhere}\n",
        Table::new(headers, rows)
    )
}

fn row(client: &PlaintextClientView) -> [String; 8] {
    [
        client.pod.clone(),
        client.port.to_string(),
        client.mode.clone(),
        known(&client.client),
        client.address.to_string(),
        client.connections.to_string(),
        format!("{} ago", span(client.last_seconds)),
        client.cure.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_strict_would_break_is_named_with_the_cure() {
        let client = PlaintextClientView {
            pod: "shop/till".into(),
            port: 80,
            mode: "PERMISSIVE".into(),
            client: Some("street/out".into()),
            address: [10, 0, 0, 1].into(),
            connections: 12,
            last_seconds: 3,
            cure: "label it".into(),
        };
        let mut view = PlaintextView {
            node: "a".into(),
            watched_seconds: 7_200,
            clients: vec![client],
            left_out: 2,
        };
        let expected = "\
Plaintext to pods of node a for 2h0m; STRICT would break (or breaks) these clients:

POD         PORT   MODE         CLIENT       ADDRESS    CONNECTIONS   LAST     CURE
shop/till   80     PERMISSIVE   street/out   10.0.0.1   12            3s ago   label it
2 connections of further clients aren't shown.

Ask every node, and let its agent run for as long as the rarest client takes.
";
        assert_eq!(text(&view), expected);
        view.clients.clear();
        assert!(
            text(&view).starts_with("No client has spoken plaintext to a pod of node a for 2h0m")
        );
    }
}
