mod observe;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    discovery::store::Snapshot,
    explain::{NodeFacts, testing::MadeUp},
    proxy::{connections::ConnectionView, plaintext_clients::PlaintextClients},
    telemetry::{
        Metrics,
        fixtures::{Written, metrics},
        logging::{LogFormat, subscriber},
    },
};

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// A server that is there until it is stopped.
struct Served<T> {
    port: u16,
    cancellation: CancellationToken,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Served<T> {
    async fn start<F>(serve: impl FnOnce(TcpListener, CancellationToken) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        let cancellation = CancellationToken::new();
        let task = tokio::spawn(serve(listener, cancellation.clone()));
        Self {
            port,
            cancellation,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap()
    }

    /// Status and body.
    async fn request(&self, method: &str, target: &str) -> (u16, String) {
        answer(&mut self.ask(method, target).await).await
    }

    /// The same, of which the answer isn't read yet.
    async fn ask(&self, method: &str, target: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn stop(self) -> T {
        self.cancellation.cancel();
        self.task.await.unwrap()
    }
}

/// Reads to the end of the connection, which every answer ends with.
async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

async fn serve_ready(readiness: &Readiness, limits: Limits) -> Served<()> {
    let readiness = readiness.clone();
    Served::start(|listener, stop| serve_readiness(listener, readiness, limits, stop)).await
}

#[tokio::test]
async fn ready_says_which_conditions_are_missing() {
    let readiness = Readiness::default();
    let (capture, certificates) = (readiness.condition("capture"), readiness.condition("CA"));
    let server = serve_ready(&readiness, Limits::default()).await;
    let ready = || server.request("GET", "/healthz/ready");
    assert_eq!(ready().await, (503, "not ready: CA, capture\n".into()));
    capture.set(true);
    assert_eq!(ready().await, (503, "not ready: CA\n".into()));
    certificates.set(true);
    assert_eq!(ready().await, (200, "ready\n".into()));
    capture.set(false);
    assert_eq!(ready().await, (503, "not ready: capture\n".into()));
    assert_eq!(server.request("POST", "/healthz/ready").await.0, 405);
    assert_eq!(server.request("GET", "/").await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_served() {
    let metrics = metrics();
    let server = Served::start(|l, stop| serve_metrics(l, metrics, Limits::default(), stop)).await;
    let (status, page) = server.request("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("\nambit_build_info{version="), "{page}");
    assert_eq!(server.request("GET", "/other").await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn clients_that_dawdle_lose_their_place_to_newer_ones() {
    let limits = Limits {
        connections: 2,
        deadline: Duration::from_secs(60),
    };
    let readiness = Readiness::default();
    let server = serve_ready(&readiness, limits).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /healthz/ready HTTP/1.1\r\nho")
        .await
        .unwrap();
    for dawdler in [&mut silent, &mut slow] {
        // Both places are taken when the first of these comes.
        let _other = server.connect().await;
        assert_eq!(server.request("GET", "/healthz/ready").await.0, 200);
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = dawdler.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "no answer to half a request");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_endless_header_is_refused() {
    let readiness = Readiness::default();
    let server = serve_ready(&readiness, Limits::default()).await;
    let mut stream = server.connect().await;
    let request = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(64 * 1024));
    // The server may close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 431");
    server.stop().await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_after_the_cancellation() {
    let readiness = Readiness::default();
    let server = serve_ready(&readiness, Limits::default()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /healthz/ready HTTP/1.1\r\n")
        .await
        .unwrap();
    // Once a later connection has been served, the earlier one has been accepted.
    server.request("GET", "/healthz/ready").await;
    server.cancellation.cancel();
    stream.write_all(b"host: localhost\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    server.stop().await;
}

/// What doesn't change.
struct Fixed {
    metrics: Arc<Metrics>,
    facts: MadeUp,
}

impl Default for Fixed {
    fn default() -> Self {
        Self {
            metrics: metrics(),
            facts: MadeUp::default(),
        }
    }
}

impl AdminSource for Fixed {
    fn status(&self) -> Option<StatusView> {
        Some(StatusView {
            version: "1.2.3".into(),
            node: "node-a".into(),
            instance: None,
            uptime_seconds: 7,
            conditions: [("CA".into(), true), ("capture".into(), false)].into(),
            source: SourceView {
                kind: "directory".into(),
                location: "/manifests".into(),
                in_sync: true,
                reason: None,
            },
            capture: CaptureView::of(&Snapshot::default(), "node-a", |_| true, |_| None, 0),
            splice: SpliceView {
                active: false,
                reason: Some("self-test".into()),
            },
            connections: 1,
            tunnels: TunnelsView {
                outbound: 2,
                inbound: 0,
            },
            certificates: CertificatesView::of(&self.certificates(), Timestamp::UNIX_EPOCH),
            problems: 3,
        })
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::default()
    }

    fn connections(&self) -> Vec<ConnectionView> {
        Vec::new()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        vec![CertificateView {
            identity: "spiffe://cluster.local/ns/web/sa/client".into(),
            serial: None,
            not_before: None,
            not_after: None,
            error: Some("no answer".into()),
        }]
    }

    fn problems(&self) -> Vec<ProblemView> {
        Vec::new()
    }

    fn plaintext(&self) -> Option<PlaintextView> {
        let (clients, now) = (PlaintextClients::default(), Instant::now());
        let view = PlaintextView::of(&self.snapshot(), "node-a", &clients, (now, now));
        Some(view)
    }

    fn facts(&self) -> Option<&dyn NodeFacts> {
        Some(&self.facts)
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

#[tokio::test]
async fn the_operator_sees_lists_and_changes_the_log_level() {
    // Held, since the level is the subscriber's.
    let (_subscriber, log) = subscriber(LogFormat::Text, "info", Written::default()).unwrap();
    let control = log.clone();
    let server = Served::start(|listener, stop| {
        serve_admin(
            listener,
            Arc::<Fixed>::default(),
            log,
            Limits::default(),
            stop,
        )
    })
    .await;
    for path in [
        "/connections",
        "/workloads",
        "/services",
        "/policies",
        "/problems",
    ] {
        assert_eq!(
            server.request("GET", path).await,
            (200, "[]".into()),
            "{path}"
        );
        assert_eq!(server.request("PUT", path).await.0, 405, "{path}");
    }
    let (status, body) = server.request("GET", "/certificates").await;
    let certificates: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &certificates[0]["error"]),
        (200, &json!("no answer"))
    );

    let (status, body) = server.request("GET", "/status").await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).unwrap()),
        (
            200,
            json!({
                "version": "1.2.3",
                "node": "node-a",
                "instance": null,
                "uptime_seconds": 7,
                "conditions": {"CA": true, "capture": false},
                "source": {
                    "kind": "directory",
                    "location": "/manifests",
                    "in_sync": true,
                    "reason": null,
                },
                "capture": {
                    "enrolled_pods": 0,
                    "captured_pods": 0,
                    "waiting": [],
                    "entries_left_out": 0,
                },
                "splice": {"active": false, "reason": "self-test"},
                "connections": 1,
                "tunnels": {"outbound": 2, "inbound": 0},
                "certificates": {
                    "valid": 0,
                    "missing": 1,
                    "failing": 1,
                    "soonest_expiry": null,
                },
                "problems": 3,
            })
        )
    );

    let cases = [
        ("GET", "/logging", 200, "info"),
        ("PUT", "/logging?level=debug", 200, "debug"),
        (
            "PUT",
            "/logging?level=info,ambit::access=off",
            200,
            "ambit::access=off,info",
        ),
        ("PUT", "/logging?level=loud", 400, "ambit::access=off,info"),
        ("PUT", "/logging", 400, "ambit::access=off,info"),
        ("DELETE", "/logging", 405, "ambit::access=off,info"),
    ];
    for (method, target, status, filter) in cases {
        assert_eq!(
            server.request(method, target).await.0,
            status,
            "{method} {target}"
        );
        assert_eq!(control.filter().unwrap(), filter, "{method} {target}");
    }
    assert_eq!(server.request("GET", "/nothing").await.0, 404);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_operators_endpoint_refuses_to_be_public() {
    let (_subscriber, log) = subscriber(LogFormat::Text, "info", Written::default()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let stop = CancellationToken::new();
    let served = serve_admin(
        listener,
        Arc::<Fixed>::default(),
        log,
        Limits::default(),
        stop,
    )
    .await;
    assert!(matches!(served, Err(AdminError::NotLoopback(_))));
}

#[test]
fn a_workload_is_shown_as_it_is() {
    let workload = crate::telemetry::fixtures::workload("web", "client", "node-a");
    assert_eq!(
        serde_json::to_value(WorkloadView::of(&workload, &Snapshot::default())).unwrap(),
        json!({
            "name": "web/client-0",
            "uid": "uid of web/client-0",
            "addresses": ["10.0.0.1"],
            "node": "node-a",
            "identity": "spiffe://cluster.local/ns/web/sa/client",
            "enrolment": "enrolled",
            "tunnel": "node agent",
            "ready": true,
            "waypoint": null,
        })
    );
}
