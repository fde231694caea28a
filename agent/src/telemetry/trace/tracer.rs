//! Begins the spans of requests.

use std::time::SystemTime;

use http::HeaderMap;

use super::{Fresh, OwnSpan, RequestTrace, Sampling, SpanId, TraceId};
use crate::telemetry::otlp::SpanQueue;

/// Decides for each request what its trace is. Cheap to clone. By default it records nothing, and
/// traces pass as they come.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Recording>);

#[derive(Debug, Clone)]
struct Recording {
    sampling: Sampling,
    spans: SpanQueue,
}

impl Tracer {
    /// One that records spans.
    #[must_use]
    pub fn new(sampling: Sampling, spans: SpanQueue) -> Self {
        Self(Some(Recording { sampling, spans }))
    }

    /// What the trace of a request with these headers is.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Traced {
        let Some(recording) = &self.0 else {
            return Traced {
                trace: RequestTrace::pass_on(headers),
                spans: None,
            };
        };
        let fresh = Fresh {
            trace: TraceId::new(rand::random()),
            span: SpanId::new(rand::random()),
        };
        let trace = RequestTrace::begin(headers, recording.sampling, fresh, SystemTime::now());
        let spans = trace.recorded().map(|_| recording.spans.clone());
        Traced { trace, spans }
    }
}

/// A request's trace, and who takes its span.
#[derive(Debug, Clone, Default)]
pub struct Traced {
    trace: RequestTrace,
    spans: Option<SpanQueue>,
}

impl Traced {
    /// The trace, if the request has one.
    #[must_use]
    pub fn id(&self) -> Option<TraceId> {
        self.trace.id()
    }

    /// Has whoever is asked next know of the trace: its headers, in the place of what is there.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        self.trace.insert_into(headers);
    }

    /// The span, and where it goes, if it is recorded.
    pub(in crate::telemetry) fn recorded(&self) -> Option<(&OwnSpan, &SpanQueue)> {
        self.trace.recorded().zip(self.spans.as_ref())
    }
}
