//! `ambit connections`.

use std::net::SocketAddr;

use anyhow::Result;

use super::{
    operator::{AskOf, OfNamespace},
    table::{self, NOTHING, Table},
};
use crate::proxy::connections::ConnectionView;

pub(super) async fn run(AskOf { ask, of }: AskOf) -> Result<()> {
    let mut connections: Vec<ConnectionView> = ask.agent().ask("connections").await?;
    connections.retain(|connection| is_of(connection, &of));
    sort(&mut connections);
    ask.show_list(&connections, table, || {
        format!("no connections are open{}", of.words())
    })
}

/// Whether either end or the service is in the namespace.
fn is_of(connection: &ConnectionView, of: &OfNamespace) -> bool {
    let ends = [
        &connection.source,
        &connection.destination,
        &connection.service,
    ];
    let mut named = ends.into_iter().flatten();
    of.is_any() || named.any(|name| of.selects(name))
}

/// What belongs together, and of that the oldest first.
fn sort(connections: &mut [ConnectionView]) {
    connections.sort_by(|a, b| {
        let ends = |it: &ConnectionView| (it.source.clone(), it.destination.clone());
        let by_ends = ends(a).cmp(&ends(b));
        by_ends.then_with(|| b.age.cmp(&a.age))
    });
}

fn table(connections: &[ConnectionView]) -> Table<9> {
    let headers = [
        "DIRECTION",
        "SOURCE",
        "FROM",
        "DESTINATION",
        "TO",
        "SERVICE",
        "TO-CLIENT",
        "TO-SERVER",
        "AGE",
    ];
    let row = |connection: &ConnectionView| {
        let direction = connection.reporter.direction().as_str();
        let source = &connection.source;
        let identity = connection.source_identity.as_deref().map(table::identity);
        let address = |address: SocketAddr| address.to_string();
        [
            direction.to_owned(),
            source.clone().or(identity).unwrap_or(NOTHING.to_owned()),
            address(connection.source_address),
            table::known(&connection.destination),
            address(connection.destination_address),
            table::known(&connection.service),
            bytes(connection.bytes_sent),
            bytes(connection.bytes_received),
            table::span(connection.age.as_secs()),
        ]
    };
    Table::new(headers, connections.iter().map(row))
}

/// `512B`, `1.5KiB`, `3.0GiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut whole = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        // What would be written as 1024.0 is one of the next unit.
        if whole < 1023.95 {
            break;
        }
        whole /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{count}B"),
        _ => format!("{whole:.1}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Reporter;

    fn connection(source: Option<&str>, seconds: u64) -> ConnectionView {
        ConnectionView {
            reporter: Reporter::Source,
            source: source.map(Into::into),
            source_identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
            source_address: ([10, 1, 0, 1], 40_000).into(),
            destination: Some("till/kasse".into()),
            destination_address: ([10, 1, 1, 1], 8080).into(),
            service: None,
            age: Duration::from_secs(seconds),
            bytes_sent: 3_000_000,
            bytes_received: 64,
        }
    }

    #[test]
    fn connections_of_the_same_ends_stand_together_the_oldest_first() {
        let service = Some("bank/vault".into());
        let mut connections = [
            connection(Some("shop/web"), 3),
            ConnectionView {
                reporter: Reporter::Destination,
                ..connection(None, 1)
            },
            ConnectionView {
                service,
                ..connection(Some("shop/web"), 70)
            },
        ];
        sort(&mut connections);
        let expected = "\
DIRECTION   SOURCE                         FROM             DESTINATION   TO              SERVICE      TO-CLIENT   TO-SERVER   AGE
inbound     cluster.local/ns/shop/sa/web   10.1.0.1:40000   till/kasse    10.1.1.1:8080   -            2.9MiB      64B         1s
outbound    shop/web                       10.1.0.1:40000   till/kasse    10.1.1.1:8080   bank/vault   2.9MiB      64B         1m10s
outbound    shop/web                       10.1.0.1:40000   till/kasse    10.1.1.1:8080   -            2.9MiB      64B         3s
";
        assert_eq!(table(&connections).to_string(), expected);
    }

    #[test]
    fn a_namespace_is_that_of_either_end_or_of_the_service() {
        let connection = ConnectionView {
            service: Some("bank/vault".into()),
            ..connection(Some("shop/web"), 3)
        };
        for (namespace, expected) in [
            (None, true),
            (Some("shop"), true),
            (Some("till"), true),
            (Some("bank"), true),
            (Some("web"), false),
        ] {
            let of = OfNamespace::only(namespace);
            assert_eq!(is_of(&connection, &of), expected, "{namespace:?}");
        }
    }

    #[test]
    fn bytes_are_rounded_to_a_tenth_of_their_unit() {
        for (count, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (1_048_575, "1.0MiB"),
            (3 << 30, "3.0GiB"),
            (5 << 50, "5120.0TiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }
}
