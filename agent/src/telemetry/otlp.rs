//! Sends spans to a collector by OTLP over gRPC.
//!
//! What spans come from never waits for it: they wait in a bounded queue, and what finds it full
//! is dropped and counted.

mod queue;
mod span;

use std::{str::FromStr, time::Duration};

use http::Uri;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, ClientTlsConfig},
};

use self::queue::Waiting;
pub use self::queue::{SpanCounts, SpanQueue};
pub(super) use self::span::{Attributes, Span, SpanKind, status};

/// A collector takes this many in a message without complaint: its own limit is 4 MiB by default.
const MAX_BATCH: usize = 512;
/// For how long spans wait for others to go with them.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to answer, being reached included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a batch is sent before it is given up.
const ATTEMPTS: u32 = 5;
/// Between the first and the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// For what is left when the process ends.
const FLUSH: Duration = Duration::from_secs(5);

/// Where a collector takes OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// Text that is no [`Endpoint`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a collector: write http://host:4317, or https:// if it has a certificate")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Option<Uri> = text.parse().ok();
        let usable = |uri: &Uri| {
            let known = matches!(uri.scheme_str(), Some("http" | "https"));
            // gRPC has the path for itself.
            known
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.path() == "/"
                && uri.query().is_none()
        };
        let uri = uri.filter(usable);
        uri.map(Self).ok_or_else(|| EndpointError(text.to_owned()))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The collector's address can't be called.
#[derive(Debug, thiserror::Error)]
#[error("the collector {endpoint} can't be called: {source}")]
pub struct Error {
    endpoint: Endpoint,
    source: tonic::transport::Error,
}

/// Takes spans out of a queue and sends them.
#[derive(Debug)]
pub struct Exporter {
    endpoint: Endpoint,
    client: TraceServiceClient<Channel>,
    queue: SpanQueue,
    waiting: Waiting,
    resource: Resource,
}

impl Exporter {
    /// One that sends to this collector. `resource` says whose spans they are, as attributes of
    /// OpenTelemetry's. Nothing is dialled before there is a span.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub fn new(endpoint: Endpoint, resource: &[(&str, &str)]) -> Result<Self, Error> {
        let unusable = |source| Error {
            endpoint: endpoint.clone(),
            source,
        };
        let mut channel = Channel::builder(endpoint.0.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        if endpoint.0.scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new().with_native_roots();
            channel = channel.tls_config(tls).map_err(unusable)?;
        }
        let attributes = resource
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .fold(Attributes::default(), |all, (key, value)| {
                all.text(key, *value)
            });
        let (queue, waiting) = queue::queue();
        Ok(Self {
            endpoint,
            queue,
            client: TraceServiceClient::new(channel.connect_lazy()),
            waiting,
            resource: Resource {
                attributes: attributes.into(),
                ..Resource::default()
            },
        })
    }

    /// Where spans are put.
    #[must_use]
    pub fn queue(&self) -> SpanQueue {
        self.queue.clone()
    }

    /// What waits, for tests of what makes spans.
    #[cfg(test)]
    pub(super) fn into_waiting(mut self) -> Vec<Span> {
        self.waiting.take(usize::MAX)
    }

    /// Sends spans until told to stop, then what is left, for which it takes 10 s at most.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = stop.run_until_cancelled(self.gather()).await {
            let result = self.deliver(&batch, &stop).await;
            self.account(batch.len(), result);
        }
        let deadline = Instant::now() + FLUSH;
        loop {
            let batch = self.waiting.take(MAX_BATCH);
            if batch.is_empty() {
                return;
            }
            let count = batch.len();
            let sent = timeout_at(deadline, self.send(batch)).await;
            let result = sent.unwrap_or_else(|_| Err(Status::deadline_exceeded("too slow")));
            let over = result.is_err();
            self.account(count, result);
            if over {
                return self.waiting.abandon();
            }
        }
    }

    /// The next spans, once there is one. Those that it has taken when it is cancelled wait on.
    async fn gather(&mut self) -> Vec<Span> {
        self.waiting.any().await;
        if self.waiting.len() < MAX_BATCH {
            sleep(GATHER).await;
        }
        self.waiting.take(MAX_BATCH)
    }

    /// Sends a batch, again if that may help; once told to stop, without pausing and only once more.
    /// How many the collector didn't want.
    async fn deliver(&mut self, batch: &[Span], stop: &CancellationToken) -> Result<u64, Status> {
        let mut pause = FIRST_PAUSE;
        let mut left = ATTEMPTS;
        loop {
            left = if stop.is_cancelled() { 0 } else { left - 1 };
            match self.send(batch.to_vec()).await {
                Err(status) if left > 0 && may_be_repeated(&status) => {
                    tracing::debug!(collector = %self.endpoint, %status, "spans are sent again");
                }
                result => return result,
            }
            stop.run_until_cancelled(sleep(pause)).await;
            pause *= 2;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) -> Result<u64, Status> {
        let scope = InstrumentationScope {
            name: "ambit".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let answer = self.client.export(request).await?.into_inner();
        let Some(partial) = answer.partial_success else {
            return Ok(0);
        };
        if !partial.error_message.is_empty() {
            let message = &partial.error_message;
            tracing::warn!(collector = %self.endpoint, "the collector says: {message}");
        }
        Ok(u64::try_from(partial.rejected_spans).unwrap_or(0))
    }

    fn account(&self, count: usize, result: Result<u64, Status>) {
        let counts = self.waiting.counts();
        match result {
            Ok(rejected) => counts.sent(count as u64, rejected),
            Err(status) => {
                counts.failed(count as u64);
                tracing::warn!(
                    collector = %self.endpoint,
                    count,
                    "spans are lost: {:?}: {}",
                    status.code(),
                    status.message()
                );
            }
        }
    }
}

/// By OTLP's specification, "Failures".
fn may_be_repeated(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests;
