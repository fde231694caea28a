use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::*;
use crate::telemetry::{
    fixtures::{Written, denied_by, description, metrics, stranger, value},
    logging::{LogFormat, subscriber},
};

/// Runs `connection` and returns its access log lines, which are all that is logged.
fn lines(connection: impl FnOnce(ConnectionReport)) -> Vec<Value> {
    lines_of(description(), connection)
}

fn lines_of(
    description: ConnectionDescription,
    connection: impl FnOnce(ConnectionReport),
) -> Vec<Value> {
    let written = Written::default();
    let (subscriber, _) = subscriber(LogFormat::Json, "info", written.clone()).unwrap();
    let metrics = metrics();
    tracing::subscriber::with_default(subscriber, || {
        connection(ConnectionReport::open(
            &metrics,
            description,
            Arc::default(),
        ));
    });
    let closed: f64 = crate::telemetry::fixtures::scrape(&metrics, "istio_tcp_connections_closed")
        .iter()
        .map(|sample| sample.value)
        .sum();
    assert_eq!(closed, 1.0, "closed once");
    assert_eq!(
        value(
            &metrics,
            "ambit_connections_open",
            &[("direction", "outbound")]
        ),
        Some(0.0)
    );
    let text = written.text();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn every_way_to_end_writes_one_line() {
    type Connection = fn(ConnectionReport);
    let cases: [(&str, Connection, &str, Option<&str>); 5] = [
        (
            "complete",
            |report| report.finish(Outcome::Complete),
            "INFO",
            None,
        ),
        (
            "denied",
            |report| report.finish(Outcome::Denied(&denied_by("lock-down"))),
            "WARN",
            Some("denied by AuthorizationPolicy shop/lock-down"),
        ),
        (
            "failed",
            |report| {
                report.finish(Outcome::Failed {
                    flags: ResponseFlags::Connect,
                    error: &"connection refused",
                });
            },
            "WARN",
            Some("connection refused"),
        ),
        ("dropped", drop, "WARN", Some("aborted")),
        (
            "panicked",
            |report| {
                let held = AssertUnwindSafe(report);
                let panicked = catch_unwind(|| {
                    let _held = held;
                    std::panic::resume_unwind(Box::new("a fault"));
                });
                assert!(panicked.is_err());
            },
            "WARN",
            Some("aborted"),
        ),
    ];
    for (name, connection, level, error) in cases {
        let lines = lines(connection);
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        assert_eq!(lines[0]["target"], "ambit::access", "{name}");
        assert_eq!(lines[0]["level"], level, "{name}");
        let said = lines[0].get("error").map(|error| error.as_str().unwrap());
        let denial = said
            .zip(error)
            .is_some_and(|(said, error)| said.starts_with(error));
        assert!(denial || said == error, "{name}: {said:?}");
    }
}

#[test]
fn a_line_has_every_key_that_is_known_and_no_other() {
    let own = ["timestamp", "level", "target", "message"];
    let check = |description, expected: &[(&str, Value)]| {
        let lines = lines_of(description, |report| {
            report.transfer().add_sent(300);
            report.transfer().add_received(20);
            report.finish(Outcome::Complete);
        });
        let mut line = lines[0].as_object().unwrap().clone();
        line.retain(|key, _| !own.contains(&&**key));
        let duration = line.remove("duration").unwrap();
        let millis = duration.as_str().unwrap().strip_suffix("ms").unwrap();
        millis.parse::<u64>().unwrap();
        let expected = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        assert_eq!(line, expected.collect());
    };
    check(
        description(),
        &[
            ("src.addr", "10.0.0.1:40000".into()),
            ("src.workload", "client-0".into()),
            ("src.namespace", "web".into()),
            (
                "src.identity",
                "spiffe://cluster.local/ns/web/sa/client".into(),
            ),
            ("dst.addr", "192.0.2.2:15008".into()),
            ("dst.hbone_addr", "10.0.1.1:8080".into()),
            ("dst.service", "front.shop.svc.cluster.local".into()),
            ("dst.workload", "server-0".into()),
            ("dst.namespace", "shop".into()),
            (
                "dst.identity",
                "spiffe://cluster.local/ns/shop/sa/server".into(),
            ),
            ("direction", "outbound".into()),
            ("bytes_sent", 300.into()),
            ("bytes_recv", 20.into()),
        ],
    );
    check(
        stranger(),
        &[
            ("src.addr", "10.0.0.1:40000".into()),
            ("dst.addr", "10.0.1.1:8080".into()),
            ("dst.workload", "server-0".into()),
            ("dst.namespace", "shop".into()),
            (
                "dst.identity",
                "spiffe://cluster.local/ns/shop/sa/server".into(),
            ),
            ("direction", "inbound".into()),
            ("bytes_sent", 300.into()),
            ("bytes_recv", 20.into()),
        ],
    );
}
