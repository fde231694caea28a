//! What a waypoint tells of requests: metrics, log and spans.

use lab::{Lab, Result, ambit_program, eventually};
use serde_json::Value;

use crate::{
    shop::{DEADLINE, PORT, metrics, sample},
    stage::{Of, Stage, check},
};

#[test]
fn requests_are_counted_with_who_asked_whom_and_what_came_of_it() -> Result<()> {
    let lab = Lab::builder("l7-metrics").build()?;
    let stage = Stage::open(&lab)?;
    let _grpc = stage.serve("grpc-server", 8081, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let admin = format!("127.0.0.1:{PORT}");
    let observe = lab.node("b").command(ambit_program()?);
    let observe = observe.args(["observe", "-o", "json", "--verdict", "allowed"]);
    let mut observer = observe.args(["--admin-address", &admin]).spawn()?;
    eventually("the waypoint to be observed", DEADLINE, || {
        metrics(&lab, "b").contains("ambit_observers 1")
    });
    for (path, times) in [
        ("/counted", 3),
        ("/counted?status=404", 2),
        ("/counted?status=503", 1),
    ] {
        for _ in 0..times {
            stage.ask_as(&stage.stranger, path, &["--body=10", "--method=POST"])?;
        }
    }
    let grpc = ["--url=http://front", "--fail=7"];
    stage.call((Of::Both, 81), &stage.stranger, "grpc-client", &grpc)?;
    // Who doesn't wait, by closing a connection and by resetting a stream.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{}/left?delay=5s", stage.at(Of::Both, 80));
        let curl = stage
            .stranger
            .command("curl")
            .args([version, "-m", "1", "-sS", &url]);
        assert!(!curl.run()?.succeeded());
    }
    let expected: [(&[(&str, &str)], f64); 5] = [
        (
            &[
                ("response_code", "200"),
                ("request_protocol", "http"),
                ("response_flags", "-"),
            ],
            3.0,
        ),
        (&[("response_code", "404")], 2.0),
        (&[("response_code", "503")], 1.0),
        (
            &[("request_protocol", "grpc"), ("grpc_response_status", "7")],
            1.0,
        ),
        (&[("response_flags", "DC")], 2.0),
    ];
    for (labels, expected) in expected {
        let all = [
            ("reporter", "waypoint"),
            ("source_workload", "stranger"),
            (
                "source_principal",
                "spiffe://cluster.local/ns/shop/sa/stranger",
            ),
            ("destination_service", "front.shop.svc.cluster.local"),
            ("connection_security_policy", "mutual_tls"),
        ];
        let all = [&all, labels].concat();
        eventually(&format!("{labels:?}"), DEADLINE, || {
            #[expect(clippy::float_cmp, reason = "they are counts")]
            let is_it = sample(&metrics(&lab, "b"), "istio_requests_total", &all) == expected;
            is_it
        });
    }
    let page = metrics(&lab, "b");
    let of = [
        ("source_workload", "stranger"),
        ("response_code", "200"),
        ("request_protocol", "http"),
    ];
    for (name, least) in [
        ("istio_request_duration_milliseconds_count", 3.0),
        ("istio_request_bytes_sum", 30.0),
        ("istio_response_bytes_sum", 300.0),
    ] {
        assert!(sample(&page, name, &of) >= least, "{name}");
    }
    let log = mesh.agent("b").stderr();
    let line = log
        .lines()
        .find(|line| line.contains("path=\"/counted\"") && line.contains("status=404"));
    let line = line.unwrap_or_else(|| panic!("no line of it: {log}"));
    for part in [
        "ambit::access",
        "method=\"POST\"",
        "authority=\"front\"",
        "flags=-",
        "bytes_recv=10",
        "src.identity=spiffe://cluster.local/ns/shop/sa/stranger",
        "dst.service=\"front.shop.svc.cluster.local\"",
        "dst.waypoint=shop/w",
    ] {
        assert!(line.contains(part), "{part} isn't in {line}");
    }
    assert!(!log.contains("status=404?"), "no query is logged");

    let event = observer.await_stdout(DEADLINE, |line| line.contains("\"status\":404"))?;
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["event"], "request", "{event}");
    assert_eq!(event["source"], "shop/stranger", "{event}");
    assert_eq!(event["service"], "shop/front", "{event}");
    assert_eq!(event["request"]["path"], "/counted", "{event}");
    assert_eq!(event["bytes_received"], 10, "{event}");
    let graph = lab.node("b").fetch(&format!("http://{admin}/graph"))?;
    let graph: Value = serde_json::from_str(&graph).unwrap();
    let edges = graph["edges"].as_array().unwrap().iter();
    let of_requests = edges.filter(|edge| edge["requests"]["total"].as_u64() > Some(0));
    let errors = of_requests.map(|edge| edge["requests"]["errors"].as_u64().unwrap());
    // One 503, and two who didn't wait.
    assert_eq!(errors.sum::<u64>(), 3, "{graph}");
    // The page has quantiles of them.
    let seen = lab.node("b").browse(&format!("http://{admin}/"))?;
    assert_eq!(seen.console, Vec::<String>::new());
    let traffic = seen.between("<table id=\"traffic\">", "</table>");
    let of_stranger = traffic
        .split("<tr ")
        .filter(|row| row.starts_with("data-key=\"shop/stranger to "));
    let mut latencies =
        of_stranger.filter_map(|row| row.split("<td").find(|it| it.contains(" / ")));
    assert!(
        latencies.any(|cell| cell.matches(" ms").count() == 2),
        "{traffic}"
    );
    Ok(())
}

#[test]
fn a_traces_spans_go_on_at_the_waypoint() -> Result<()> {
    let lab = Lab::builder("l7-traces").build()?;
    let stage = Stage::open(&lab)?;
    let node = lab.node("b");
    let listen = format!("{}:4317", node.address());
    let mut collector = node.peer_server(["otlp", "--listen", &listen])?;
    let endpoint = format!("http://{listen}");
    let arguments = ["--otlp-endpoint", &endpoint, "--trace-sampling", "0"];
    let _mesh = stage.mesh(&lab, &arguments)?;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traced = |flags: &str| format!("--header=traceparent: 00-{trace}-{parent}-{flags}");
    // Whoever began the trace doesn't want it, or wants it.
    stage.ask("/unwanted", &[&traced("00")])?;
    let answer = stage.ask(
        "/wanted?status=500",
        &[&traced("01"), "--header=tracestate: a=b"],
    )?;
    let sent_on = answer["body"]["headers"]["traceparent"][0]
        .as_str()
        .unwrap();
    let spans = collector.await_reports(1, DEADLINE)?;
    let [span] = &spans[..] else {
        panic!("one is wanted: {spans:?}")
    };
    check(
        "span",
        span,
        &[
            ("/trace_id", trace.into()),
            ("/parent_span_id", parent.into()),
            ("/trace_state", "a=b".into()),
            ("/name", "GET".into()),
            ("/attributes/url.path", "/wanted".into()),
            ("/attributes/http.response.status_code", 500.into()),
            ("/resource/service.name", "w".into()),
        ],
    );
    let own = span["span_id"].as_str().unwrap();
    assert_eq!(sent_on, format!("00-{trace}-{own}-01"));
    Ok(())
}
