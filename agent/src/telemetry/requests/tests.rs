mod dashboard;
mod flow;

use http::{Method, Request};
use serde_json::Value;

use super::*;
use crate::telemetry::{
    fixtures::{
        Sample, Written, denied_by, metrics, object, scrape, service, traffic, value, workload,
    },
    logging::{LogFormat, subscriber},
    metrics::MetricsOptions,
};

/// From `web/client` to `shop/front`: `POST http://front.shop/cart?secret`.
pub(super) fn description() -> RequestDescription {
    let source = workload("web", "client", "node-a");
    let request = Request::post("http://front.shop:8080/cart?secret=1")
        .header("user-agent", "curl/8")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        );
    let (request, ()) = request.body(()).unwrap().into_parts();
    RequestDescription {
        source_identity: Some(source.identity.clone()),
        source: Some(source),
        source_address: ([10, 0, 0, 1], 40_000).into(),
        service: Some(service("shop", "front")),
        waypoint: object("shop", "gate"),
        head: RequestHead::of(&request),
        trace: crate::telemetry::trace::Tracer::default().begin(&request.headers),
    }
}

pub(super) fn upstream(service: &str) -> Upstream {
    let workload = workload("shop", "server", "node-b");
    Upstream {
        service: Some(object("shop", service)),
        identity: Some(workload.identity.clone()),
        workload: Some(workload),
        address: ([10, 0, 1, 1], 8080).into(),
    }
}

pub(super) fn answered(status: StatusCode) -> ResponseOutcome<'static> {
    ResponseOutcome {
        status: Some(status),
        grpc_status: None,
        flags: RequestFlags::NONE,
        error: None,
    }
}

#[test]
fn a_request_is_under_way_until_it_is_finished_or_dropped() {
    let metrics = metrics();
    let open = || RequestReport::open(&metrics, description());
    let activity = || {
        let now = metrics.activity();
        (now.requests, now.under_way)
    };
    assert_eq!(activity(), (0, 0));
    let (first, second) = (open(), open());
    assert_eq!(activity(), (2, 2));
    first.finish(answered(StatusCode::OK));
    assert_eq!(activity(), (2, 1));
    drop(second);
    assert_eq!(activity(), (2, 0));
}

/// Runs `request`; returns its one line of the log, and its one sample of `istio_requests_total`.
fn told(request: impl FnOnce(RequestReport)) -> (Value, Sample) {
    let written = Written::default();
    let (subscriber, _) = subscriber(LogFormat::Json, "info", written.clone()).unwrap();
    let metrics = metrics();
    tracing::subscriber::with_default(subscriber, || {
        request(RequestReport::open(&metrics, description()));
    });
    let text = written.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let samples = scrape(&metrics, "istio_requests_total");
    assert_eq!((lines.len(), samples.len()), (1, 1), "{text}");
    assert_eq!(samples[0].value, 1.0);
    (lines[0].clone(), samples[0].clone())
}

#[test]
fn every_way_to_end_is_told_once() {
    type Case = (
        &'static str,
        fn(RequestReport),
        &'static str,
        &'static str,
        &'static str,
        Option<&'static str>,
    );
    let cases: [Case; 6] = [
        (
            "answered",
            |report| report.finish(answered(StatusCode::OK)),
            "INFO",
            "200",
            "-",
            None,
        ),
        (
            "a server's own error",
            |report| report.finish(answered(StatusCode::INTERNAL_SERVER_ERROR)),
            "INFO",
            "500",
            "-",
            None,
        ),
        (
            "no endpoint, after a fault",
            |mut report| {
                report.flag(RequestFlags::DELAY_INJECTED);
                report.finish(ResponseOutcome {
                    flags: RequestFlags::NO_HEALTHY_UPSTREAM,
                    error: Some(&"no endpoint is ready"),
                    ..answered(StatusCode::SERVICE_UNAVAILABLE)
                });
            },
            "WARN",
            "503",
            "UH,DI",
            Some("no endpoint is ready"),
        ),
        (
            "denied",
            |mut report| {
                let denied = denied_by("lock-down");
                report.denied(&denied);
                report.finish(ResponseOutcome {
                    error: Some(&"denied"),
                    ..answered(StatusCode::FORBIDDEN)
                });
            },
            "WARN",
            "403",
            "UAEX",
            Some("denied"),
        ),
        (
            "given up before the answer",
            drop,
            "WARN",
            "0",
            "DC",
            Some("the client went away"),
        ),
        (
            "given up within the answer",
            |mut report| report.responded(StatusCode::OK),
            "WARN",
            "200",
            "DC",
            Some("the client went away"),
        ),
    ];
    for (name, end, level, code, flags, error) in cases {
        let (line, sample) = told(end);
        assert_eq!(line["target"], "ambit::access", "{name}");
        assert_eq!(line["level"], level, "{name}");
        assert_eq!(line["flags"], flags, "{name}");
        assert_eq!(line.get("error").and_then(Value::as_str), error, "{name}");
        assert_eq!(sample.label("response_code"), code, "{name}");
        assert_eq!(sample.label("response_flags"), flags, "{name}");
    }
}

#[test]
fn a_denial_counts_its_policy() {
    let metrics = metrics();
    let mut report = RequestReport::open(&metrics, description());
    report.denied(&denied_by("lock-down"));
    drop(report);
    let labels = [("policy", "shop/lock-down")];
    assert_eq!(
        value(&metrics, "ambit_policy_denials_total", &labels),
        Some(1.0)
    );
}

#[test]
fn a_line_has_every_key_that_is_known_and_no_other() {
    let check = |request: fn(RequestReport), expected: &[(&str, Value)]| {
        let (mut line, _) = told(request);
        let line = line.as_object_mut().unwrap();
        for own in ["timestamp", "level", "target", "message"] {
            line.remove(own).unwrap();
        }
        let duration = line.remove("duration").unwrap();
        let millis = duration.as_str().unwrap().strip_suffix("ms").unwrap();
        millis.parse::<u64>().unwrap();
        let always: [(&str, Value); 14] = [
            ("method", "POST".into()),
            ("path", "/cart".into()),
            ("authority", "front.shop:8080".into()),
            ("protocol", "HTTP/1.1".into()),
            ("flags", "-".into()),
            ("status", 200.into()),
            ("src.addr", "10.0.0.1:40000".into()),
            ("src.workload", "client-0".into()),
            ("src.namespace", "web".into()),
            (
                "src.identity",
                "spiffe://cluster.local/ns/web/sa/client".into(),
            ),
            ("dst.waypoint", "shop/gate".into()),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
            ("user_agent", "curl/8".into()),
            ("direction", "through".into()),
        ];
        let expected = always.iter().chain(expected);
        let expected = expected.map(|(key, value)| ((*key).to_owned(), value.clone()));
        assert_eq!(*line, expected.collect());
    };
    check(
        |report| report.finish(answered(StatusCode::OK)),
        &[
            ("bytes_recv", 0.into()),
            ("bytes_sent", 0.into()),
            ("dst.service", "front.shop.svc.cluster.local".into()),
        ],
    );
    check(
        |mut report| {
            report.sizes().add_request(20);
            report.sizes().add_response(300);
            report.route(&object("shop", "canary"));
            report.attempt(upstream("other"));
            report.attempt(upstream("next"));
            report.finish(ResponseOutcome {
                grpc_status: Some(GrpcStatus::of(&grpc_status("5")).unwrap()),
                ..answered(StatusCode::OK)
            });
        },
        &[
            ("bytes_recv", 20.into()),
            ("bytes_sent", 300.into()),
            ("grpc_status", 5.into()),
            ("route", "shop/canary".into()),
            ("attempts", 2.into()),
            ("dst.addr", "10.0.1.1:8080".into()),
            ("dst.service", "next.shop.svc.cluster.local".into()),
            ("dst.workload", "server-0".into()),
            ("dst.namespace", "shop".into()),
            (
                "dst.identity",
                "spiffe://cluster.local/ns/shop/sa/server".into(),
            ),
        ],
    );
}

pub(super) fn grpc_status(code: &'static str) -> http::HeaderMap {
    [("grpc-status".parse().unwrap(), code.parse().unwrap())]
        .into_iter()
        .collect()
}

#[test]
fn metrics_have_the_labels_of_istio_in_its_order() {
    let metrics = metrics();
    let mut description = description();
    description.head.protocol = RequestProtocol::Grpc;
    description.head.method = Method::POST;
    let mut report = RequestReport::open(&metrics, description);
    report.attempt(upstream("front"));
    report.finish(ResponseOutcome {
        grpc_status: GrpcStatus::of(&grpc_status("14")),
        ..answered(StatusCode::OK)
    });
    let sample = scrape(&metrics, "istio_requests_total").remove(0);
    let own = [
        ("request_protocol", "grpc"),
        ("response_code", "200"),
        ("grpc_response_status", "14"),
        ("response_flags", "-"),
    ];
    assert_eq!(sample.pairs(), traffic("waypoint", &own));
}

#[test]
fn sizes_and_duration_are_in_their_histograms() {
    let metrics = metrics();
    let report = RequestReport::open(&metrics, description());
    report.sizes().add_request(20);
    report.sizes().add_response(300);
    report.finish(answered(StatusCode::OK));
    let read = |name: &str, labels: &[(&str, &str)]| value(&metrics, name, labels);
    assert_eq!(read("istio_request_bytes_sum", &[]), Some(20.0));
    assert_eq!(
        read("istio_request_bytes_bucket", &[("le", "10")]),
        Some(0.0)
    );
    assert_eq!(
        read("istio_request_bytes_bucket", &[("le", "25")]),
        Some(1.0)
    );
    assert_eq!(read("istio_response_bytes_sum", &[]), Some(300.0));
    let duration = "istio_request_duration_milliseconds";
    assert_eq!(read(&format!("{duration}_count"), &[]), Some(1.0));
    assert_eq!(
        read(&format!("{duration}_bucket"), &[("le", "+Inf")]),
        Some(1.0)
    );
}

#[test]
fn requests_beyond_the_limit_count_as_unknown_by_class() {
    let metrics = Metrics::new(MetricsOptions {
        request_series_limit: 1,
        ..MetricsOptions::default()
    })
    .unwrap();
    for status in [200, 201, 204, 503] {
        let report = RequestReport::open(&metrics, description());
        report.finish(answered(StatusCode::from_u16(status).unwrap()));
    }
    let count = |workload, code| {
        let labels = [("source_workload", workload), ("response_code", code)];
        value(&metrics, "istio_requests_total", &labels)
    };
    assert_eq!(count("client", "200"), Some(1.0));
    assert_eq!(count("unknown", "200"), Some(2.0));
    assert_eq!(count("unknown", "500"), Some(1.0));
    let overflow = "ambit_request_series_overflow_total";
    assert_eq!(value(&metrics, overflow, &[]), Some(3.0));
}
