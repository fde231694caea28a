use std::collections::BTreeMap;

use http::{Request, StatusCode};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::telemetry::{
    RequestFlags, RequestReport, ResponseOutcome,
    fixtures::{metrics, object},
    otlp::{Exporter, Span},
    requests::{
        GrpcStatus, RequestHead,
        tests::{answered, description, grpc_status, upstream},
    },
    trace::{Sampling, Tracer},
};

/// Carries `request` where all traces are recorded; the span that comes of it, if one does.
async fn recorded(
    request: http::request::Builder,
    carry: impl FnOnce(RequestReport),
) -> Option<Span> {
    let exporter = Exporter::new("http://127.0.0.1:1".parse().unwrap(), &[]).unwrap();
    let tracer = Tracer::new(Sampling::new(1.0).unwrap(), exporter.queue());
    let (request, ()) = request.body(()).unwrap().into_parts();
    let mut description = description();
    description.head = RequestHead::of(&request);
    description.trace = tracer.begin(&request.headers);
    carry(RequestReport::open(&metrics(), description));
    exporter.into_waiting().pop()
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let attributes = span.attributes.iter();
    let attributes = attributes.map(|attribute| {
        let value = match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (&*attribute.key, value)
    });
    let all: BTreeMap<_, _> = attributes.collect();
    assert_eq!(all.len(), span.attributes.len(), "no key twice");
    all
}

#[tokio::test]
async fn a_span_says_what_the_conventions_ask_for() {
    let request = Request::post("http://front.shop:8080/cart?secret=1")
        .header("user-agent", "curl/8")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("tracestate", "a=1");
    let carry = |mut report: RequestReport| {
        report.sizes().add_request(20);
        report.sizes().add_response(300);
        report.route(&object("shop", "canary"));
        report.attempt(upstream("other"));
        report.attempt(upstream("next"));
        report.finish(answered(StatusCode::OK));
    };
    let span = recorded(request, carry).await.unwrap();
    let expected = [
        ("ambit.response_flags", "-"),
        ("ambit.route", "shop/canary"),
        ("ambit.waypoint", "shop/gate"),
        ("client.address", "10.0.0.1"),
        ("client.port", "40000"),
        ("destination.address", "10.0.1.1:8080"),
        ("destination.namespace", "shop"),
        (
            "destination.principal",
            "spiffe://cluster.local/ns/shop/sa/server",
        ),
        ("destination.service", "next.shop.svc.cluster.local"),
        ("destination.workload", "server"),
        ("http.request.body.size", "20"),
        ("http.request.method", "POST"),
        ("http.request.resend_count", "1"),
        ("http.response.body.size", "300"),
        ("http.response.status_code", "200"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "1.1"),
        ("server.address", "front.shop"),
        ("server.port", "8080"),
        ("source.namespace", "web"),
        (
            "source.principal",
            "spiffe://cluster.local/ns/web/sa/client",
        ),
        ("source.workload", "client"),
        ("url.path", "/cart"),
        ("url.scheme", "http"),
        ("user_agent.original", "curl/8"),
    ];
    let expected = expected.map(|(key, value)| (key, value.to_owned()));
    assert_eq!(attributes(&span), expected.into());
    assert_eq!((&*span.name, span.kind), ("POST", 2));
    assert_eq!(span.trace_id[..2], [0x4b, 0xf9]);
    assert_eq!(
        span.parent_span_id,
        [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]
    );
    assert_ne!(span.span_id, span.parent_span_id);
    assert_eq!((&*span.trace_state, span.flags), ("a=1", 0x301));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    assert_eq!(span.status, None);
}

#[tokio::test]
async fn a_trace_that_begins_here_has_no_parent() {
    let carry = |report: RequestReport| report.finish(answered(StatusCode::OK));
    let span = recorded(Request::get("/"), carry).await.unwrap();
    assert_eq!(span.parent_span_id, Vec::<u8>::new());
    assert_eq!(
        (span.trace_id.len(), span.span_id.len(), span.flags),
        (16, 8, 0x103)
    );
}

#[tokio::test]
async fn what_the_caller_does_not_record_has_no_span() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let request = Request::get("/").header("traceparent", trace);
    let carry = |report: RequestReport| report.finish(answered(StatusCode::OK));
    assert_eq!(recorded(request, carry).await, None);
}

#[tokio::test]
async fn names_are_few_and_errors_are_the_servers() {
    type Carry = fn(RequestReport);
    let http = |method| Request::builder().method(method).uri("/a/b");
    let grpc = || {
        let call = Request::post("/shop.Cart/Add");
        call.header("content-type", "application/grpc")
    };
    let cases: [(_, Carry, &str, Option<&str>); 8] = [
        (
            http("GET"),
            |it| it.finish(answered(StatusCode::OK)),
            "GET",
            None,
        ),
        (
            http("BREW"),
            |it| it.finish(answered(StatusCode::OK)),
            "HTTP",
            None,
        ),
        (
            http("GET"),
            |it| it.finish(answered(StatusCode::NOT_FOUND)),
            "GET",
            None,
        ),
        (
            http("GET"),
            |it| it.finish(answered(StatusCode::BAD_GATEWAY)),
            "GET",
            Some("502"),
        ),
        (http("GET"), drop, "GET", Some("the client went away")),
        (
            http("GET"),
            |it| {
                it.finish(ResponseOutcome {
                    flags: RequestFlags::UPSTREAM_TIMEOUT,
                    error: Some(&"too slow"),
                    ..answered(StatusCode::GATEWAY_TIMEOUT)
                });
            },
            "GET",
            Some("too slow"),
        ),
        (
            grpc(),
            |it| it.finish(grpc_answered("5")),
            "shop.Cart/Add",
            None,
        ),
        (
            grpc(),
            |it| it.finish(grpc_answered("14")),
            "shop.Cart/Add",
            Some("14"),
        ),
    ];
    for (request, carry, name, error) in cases {
        let span = recorded(request, carry).await.unwrap();
        assert_eq!(span.name, name);
        let said = span.status.as_ref().map(|status| &*status.message);
        assert_eq!(said, error, "{span:?}");
        let attributes = attributes(&span);
        assert_eq!(attributes.contains_key("error.type"), error.is_some());
        let rpc = ["rpc.service", "rpc.method"].map(|key| attributes.get(key).map(|it| &**it));
        let is_grpc = name.contains('/');
        assert_eq!(
            rpc,
            if is_grpc {
                [Some("shop.Cart"), Some("Add")]
            } else {
                [None; 2]
            }
        );
    }
}

fn grpc_answered(code: &'static str) -> ResponseOutcome<'static> {
    ResponseOutcome {
        grpc_status: GrpcStatus::of(&grpc_status(code)),
        ..answered(StatusCode::OK)
    }
}
