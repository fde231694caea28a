//! What observers and the web page are told of requests.

use super::*;
use crate::telemetry::{
    flows::{FlowEvent, FlowFilter, RequestView, Verdict},
    graph::RequestsView,
};

#[tokio::test]
async fn a_request_is_told_to_observers_and_counted_in_its_edge() {
    let metrics = metrics();
    let filter = FlowFilter::parse("port=8080").unwrap();
    let mut observation = metrics.flows().observe(filter).unwrap();
    let policy = denied_by("lock-down");
    for (status, is_denied) in [(200, false), (503, false), (403, true)] {
        let mut report = RequestReport::open(&metrics, description());
        report.attempt(upstream("front"));
        if is_denied {
            report.denied(&policy);
        }
        report.finish(answered(StatusCode::from_u16(status).unwrap()));
    }
    let mut events = Vec::new();
    observation.next(&mut events, 10).await;
    let verdicts = events.iter().map(|event| event.verdict);
    let expected = [Verdict::Allowed, Verdict::Allowed, Verdict::Denied].map(Some);
    assert!(verdicts.eq(expected), "{events:?}");
    let event = &events[1];
    assert_eq!(event.event, FlowEvent::Request);
    assert_eq!(event.waypoint.as_deref(), Some("shop/gate"));
    assert_eq!(event.service.as_deref(), Some("shop/front"));
    let expected = RequestView {
        method: "POST".into(),
        authority: Some("front.shop:8080".into()),
        path: "/cart".into(),
        status: Some(503),
        grpc_status: None,
    };
    assert_eq!(event.request, Some(expected));

    let graph = metrics.graph();
    let [edge] = &graph.edges[..] else {
        panic!("{graph:?}");
    };
    let mut durations = vec![0; graph.duration_bounds_ms.len() + 1];
    durations[0] = 3;
    let expected = RequestsView {
        total: 3,
        errors: 1,
        denied: 1,
        durations,
    };
    assert_eq!(edge.requests, expected);
}
