use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tonic::{Request, Response};

use super::*;

type Answer = Result<i64, Code>;

/// A collector that answers calls as it is told to, one after the other, and then well.
#[derive(Clone)]
struct Collector {
    answers: Arc<Mutex<Vec<Answer>>>,
    calls: mpsc::UnboundedSender<ResourceSpans>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let answer = self.answers.lock().unwrap().pop().unwrap_or(Ok(0));
        let spans = request.into_inner().resource_spans.remove(0);
        self.calls.send(spans).unwrap();
        let rejected_spans = answer.map_err(|code| Status::new(code, "no"))?;
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: (rejected_spans > 0).then(|| ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too old".into(),
            }),
        }))
    }
}

/// A collector, what it was sent, and an exporter that runs.
struct Fixture {
    calls: mpsc::UnboundedReceiver<ResourceSpans>,
    queue: SpanQueue,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Fixture {
    async fn start(mut answers: Vec<Answer>) -> Self {
        answers.reverse();
        let (sender, calls) = mpsc::unbounded_channel();
        let collector = Collector {
            answers: Arc::new(Mutex::new(answers)),
            calls: sender,
        };
        let address = serve(collector).await;
        let endpoint = format!("http://{address}").parse().unwrap();
        let resource = [("service.name", "gate"), ("k8s.node.name", "")];
        let exporter = Exporter::new(endpoint, &resource).unwrap();
        let queue = exporter.queue();
        let stop = CancellationToken::new();
        let running = tokio::spawn(exporter.run(stop.clone()));
        Self {
            calls,
            queue,
            stop,
            running,
        }
    }

    fn push(&self, names: &[&str]) {
        for name in names {
            self.queue.push(Span {
                name: (*name).into(),
                ..Span::default()
            });
        }
    }

    /// The names of the spans in the next call.
    async fn call(&mut self) -> Vec<String> {
        let call = self.calls.recv().await.unwrap();
        let spans = &call.scope_spans[0].spans;
        spans.iter().map(|span| span.name.clone()).collect()
    }

    /// Ends it; what became of spans then: exported, rejected, failed, dropped.
    async fn end(self) -> [u64; 4] {
        self.stop.cancel();
        self.running.await.unwrap();
        self.queue.counts().read().map(|(_, count)| count)
    }
}

async fn serve(collector: Collector) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(TraceServiceServer::new(collector.clone()));
            let serving = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    address
}

#[tokio::test]
async fn spans_go_together_and_say_whose_they_are() {
    let mut fixture = Fixture::start(vec![]).await;
    fixture.push(&["a", "b"]);
    let call = fixture.calls.recv().await.unwrap();
    let attributes = call.resource.unwrap().attributes.into_iter();
    let attributes: BTreeMap<_, _> = attributes
        .map(|attribute| (attribute.key, attribute.value.unwrap().value.unwrap()))
        .collect();
    let name = Value::StringValue("gate".into());
    assert_eq!(attributes, [("service.name".to_owned(), name)].into());
    let spans = call.scope_spans[0].spans.iter();
    assert_eq!(
        spans.map(|span| &*span.name).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(fixture.end().await, [2, 0, 0, 0]);
}

#[tokio::test]
async fn what_a_collector_cannot_take_now_is_sent_again() {
    let mut fixture =
        Fixture::start(vec![Err(Code::Unavailable), Err(Code::ResourceExhausted)]).await;
    fixture.push(&["a"]);
    for _ in 0..3 {
        assert_eq!(fixture.call().await, ["a"]);
    }
    fixture.push(&["b"]);
    assert_eq!(fixture.call().await, ["b"]);
    assert_eq!(fixture.end().await, [2, 0, 0, 0]);
}

#[tokio::test]
async fn what_a_collector_refuses_is_lost_and_counted() {
    let mut fixture = Fixture::start(vec![Err(Code::InvalidArgument), Ok(1)]).await;
    fixture.push(&["a"]);
    assert_eq!(fixture.call().await, ["a"]);
    fixture.push(&["b", "c"]);
    assert_eq!(fixture.call().await, ["b", "c"]);
    assert_eq!(fixture.end().await, [1, 1, 1, 0]);
}

#[tokio::test]
async fn what_waits_when_it_ends_is_sent() {
    let fixture = Fixture::start(vec![]).await;
    let names = vec!["a"; MAX_BATCH + 1];
    fixture.push(&names);
    assert_eq!(fixture.end().await, [names.len() as u64, 0, 0, 0]);
}

#[tokio::test]
async fn without_a_collector_it_ends_and_says_what_is_lost() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{nobody}").parse().unwrap();
    let exporter = Exporter::new(endpoint, &[]).unwrap();
    let queue = exporter.queue();
    for _ in 0..MAX_BATCH + 1 {
        queue.push(Span::default());
    }
    let stop = CancellationToken::new();
    stop.cancel();
    exporter.run(stop).await;
    let [(_, exported), _, (_, failed), _] = queue.counts().read();
    assert_eq!((exported, failed), (0, MAX_BATCH as u64 + 1));
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (queue, mut waiting) = queue::queue();
    for _ in 0..10_000 {
        queue.push(Span::default());
    }
    let kept = waiting.take(usize::MAX).len();
    let [.., (result, dropped)] = queue.counts().read();
    assert_eq!((result, kept as u64 + dropped), ("dropped", 10_000));
    assert!(dropped > 0);
}

#[test]
fn a_collector_is_a_host_and_a_port() {
    for (text, valid) in [
        ("http://collector:4317", true),
        ("https://collector.tracing.svc:4317/", true),
        ("http://[fd00::1]:4317", true),
        ("collector:4317", false),
        ("http://", false),
        ("http://collector:4317/v1/traces", false),
        ("http://collector:4317?a=b", false),
        ("grpc://collector:4317", false),
        ("", false),
    ] {
        let parsed = text.parse::<Endpoint>();
        assert_eq!(parsed.is_ok(), valid, "{text}");
    }
}
