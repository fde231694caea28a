use super::*;
use crate::identity::Identity;
use crate::telemetry::{
    ConnectionDescription, ConnectionReport, Outcome, ResponseFlags, Transfer,
    fixtures::{denied_by, description, metrics, scrape, stranger, traffic, value},
};

/// A report of a connection that counts for itself.
fn report_of(metrics: &Arc<Metrics>, description: ConnectionDescription) -> ConnectionReport {
    ConnectionReport::open(metrics, description, Arc::default())
}

#[test]
fn the_standard_metrics_have_istios_names_labels_and_order() {
    let metrics = metrics();
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(&metrics, description(), transfer.clone());
    transfer.add_sent(300);
    transfer.add_received(20);
    report.finish(Outcome::Complete);

    let own = [("request_protocol", "tcp"), ("response_flags", "-")];
    let expected = traffic("source", &own);
    let samples = scrape(&metrics, "istio_");
    for sample in &samples {
        assert_eq!(sample.pairs(), expected, "{}", sample.name);
    }
    let values = samples.iter().map(|s| (&*s.name, s.value));
    assert_eq!(
        values.collect::<Vec<_>>(),
        [
            ("istio_tcp_connections_closed_total", 1.0),
            ("istio_tcp_connections_opened_total", 1.0),
            ("istio_tcp_received_bytes_total", 20.0),
            ("istio_tcp_sent_bytes_total", 300.0),
        ]
    );
}

#[test]
fn what_is_not_known_says_unknown() {
    let metrics = metrics();
    let _open = report_of(&metrics, stranger());
    let samples = scrape(&metrics, "istio_tcp_connections_opened_total");
    let unknown = samples[0].labels.iter().filter(|(_, v)| v == "unknown");
    let unknown: Vec<_> = unknown.map(|(name, _)| &**name).collect();
    assert_eq!(
        unknown,
        [
            "source_workload",
            "source_canonical_service",
            "source_canonical_revision",
            "source_workload_namespace",
            "source_principal",
            "source_app",
            "source_version",
            "source_cluster",
            "destination_service",
            "destination_service_namespace",
            "destination_service_name",
            "connection_security_policy",
        ]
    );
    assert_eq!(samples[0].label("reporter"), "destination");
}

#[test]
fn bytes_show_while_a_connection_runs_and_count_once() {
    const SENT: &str = "istio_tcp_sent_bytes_total";
    let metrics = metrics();
    let report = report_of(&metrics, description());
    for (moved, total) in [(100, 100.0), (0, 100.0), (50, 150.0)] {
        report.transfer().add_sent(moved);
        assert_eq!(value(&metrics, SENT, &[]), Some(total));
    }
    report.transfer().add_sent(7);
    report.finish(Outcome::Complete);
    assert_eq!(value(&metrics, SENT, &[]), Some(157.0));
    assert_eq!(value(&metrics, SENT, &[]), Some(157.0));
}

#[test]
fn a_connection_is_closed_under_the_flags_of_its_outcome() {
    const CLOSED: &str = "istio_tcp_connections_closed_total";
    let failed = |flags| Outcome::Failed {
        flags,
        error: &"no luck",
    };
    let denied = denied_by("lock-down");
    let cases = [
        (Outcome::Complete, "-"),
        (Outcome::Denied(&denied), "DENY"),
        (failed(ResponseFlags::Connect), "CONNECT"),
        (failed(ResponseFlags::TlsFailure), "TLS_FAILURE"),
        (
            failed(ResponseFlags::H2HandshakeFailure),
            "H2_HANDSHAKE_FAILURE",
        ),
        (failed(ResponseFlags::NetworkPolicy), "NETWORK_POLICY"),
        (failed(ResponseFlags::IdentityError), "IDENTITY_ERROR"),
    ];
    let metrics = metrics();
    for (outcome, flags) in cases {
        let labels = [("response_flags", flags)];
        let before = value(&metrics, CLOSED, &labels).unwrap_or(0.0);
        report_of(&metrics, description()).finish(outcome);
        assert_eq!(
            value(&metrics, CLOSED, &labels),
            Some(before + 1.0),
            "{flags}"
        );
    }
}

#[test]
fn open_connections_and_tunnels_go_down_again() {
    let metrics = metrics();
    let inbound = [("direction", "inbound")];
    let count = |name| value(&metrics, name, &inbound);
    let tunnels = || value(&metrics, "ambit_inbound_tunnels_open", &[]);
    let report = report_of(&metrics, stranger());
    let tunnel = metrics.inbound_tunnel_opened();
    assert_eq!(count("ambit_connections_open"), Some(1.0));
    assert_eq!(tunnels(), Some(1.0));
    drop((report, tunnel));
    assert_eq!(count("ambit_connections_open"), Some(0.0));
    assert_eq!(tunnels(), Some(0.0));
}

#[test]
fn a_certificate_shows_until_it_is_forgotten() {
    const FAILURES: &str = "ambit_certificate_renewal_failures_total";
    let metrics = metrics();
    let states = Arc::new(std::sync::Mutex::new(vec![CertificateState {
        identity: Identity::new("cluster.local", "web", "client"),
        certificate: None,
        renewals: 0,
        failures: 2,
        error: None,
    }]));
    let read = states.clone();
    metrics
        .observe_certificates(move || read.lock().unwrap().clone())
        .unwrap();
    let label = [("identity", "spiffe://cluster.local/ns/web/sa/client")];
    assert_eq!(value(&metrics, FAILURES, &label), Some(2.0));
    states.lock().unwrap().clear();
    assert_eq!(value(&metrics, FAILURES, &label), None);
}

#[test]
fn what_others_count_is_read_at_each_scrape() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let metrics = metrics();
    let count = Arc::new(AtomicU64::new(3));
    let (packets, drops) = (count.clone(), count.clone());
    metrics
        .observe_capture(move || vec![("forged-source", packets.load(Ordering::Relaxed)), ("x", 1)])
        .unwrap();
    metrics
        .observe_log_drops(move || drops.load(Ordering::Relaxed))
        .unwrap();
    metrics.observe_problems(|| 2).unwrap();
    for expected in [3_u32, 4] {
        let forged = [("reason", "forged-source")];
        let expected = Some(f64::from(expected));
        assert_eq!(
            value(&metrics, "ambit_capture_packets_total", &forged),
            expected
        );
        assert_eq!(
            value(&metrics, "ambit_log_lines_dropped_total", &[]),
            expected
        );
        count.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(value(&metrics, "ambit_manifest_problems", &[]), Some(2.0));
    assert!(metrics.observe_log_drops(|| 0).is_err(), "twice");
}

#[test]
fn denials_count_by_rule_and_policy() {
    let metrics = metrics();
    let denied = denied_by("lock-down");
    for _ in 0..2 {
        report_of(&metrics, description()).finish(Outcome::Denied(&denied));
    }
    let labels = [("rule", "deny"), ("policy", "shop/lock-down")];
    assert_eq!(
        value(&metrics, "ambit_policy_denials_total", &labels),
        Some(2.0)
    );
}

#[test]
fn every_family_is_announced_once_with_help_and_type() {
    let metrics = metrics();
    metrics.observe_capture(|| vec![("passed", 1)]).unwrap();
    metrics.observe_log_drops(|| 0).unwrap();
    metrics.observe_problems(|| 0).unwrap();
    metrics.observe_tunnels(|| 0).unwrap();
    metrics.observe_certificates(Vec::new).unwrap();
    metrics.denied(&denied_by("lock-down"));
    let _open = report_of(&metrics, description());
    let page = metrics.encode().unwrap();
    let samples = scrape(&metrics, "");
    assert!(samples.len() > 20, "{page}");
    for sample in samples {
        for kind in ["HELP", "TYPE"] {
            let announced = format!("# {kind} {} ", sample.name);
            let lines = page.lines().filter(|line| line.starts_with(&announced));
            assert_eq!(lines.count(), 1, "{announced}");
        }
    }
}
