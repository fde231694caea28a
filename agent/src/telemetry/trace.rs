//! W3C Trace Context: what trace a request belongs to, and whether its span is recorded.
//!
//! Who asked decides: a trace that comes with a request is recorded if the caller records it, and
//! a trace that begins here with the probability of `--trace-sampling`.

mod context;
mod settings;
mod state;
mod tracer;

use std::time::SystemTime;

pub use self::{
    context::{SpanContext, SpanId, TraceContext, TraceId},
    settings::{SamplingError, Settings},
    state::TraceState,
    tracer::{Traced, Tracer},
};

/// Which of the traces that begin here are recorded: a share of all, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling(f64);

impl Sampling {
    /// A share of all traces. `None` if it isn't from 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The share.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }

    /// Whether this trace is recorded: by its last 7 bytes, which W3C Trace Context (level 2,
    /// "random trace id flag") asks to be random, so that whoever has the same share decides alike.
    #[must_use]
    pub fn takes(self, trace: TraceId) -> bool {
        const SPAN: f64 = (1_u64 << 56) as f64;
        (trace.random_bits() as f64) < self.0 * SPAN
    }
}

impl Default for Sampling {
    /// 1 %.
    fn default() -> Self {
        Self(0.01)
    }
}

/// What a request's trace is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RequestTrace {
    /// It has none.
    #[default]
    None,
    /// It has one, which is nobody's business here: its headers pass as they came.
    PassedOn(TraceContext),
    /// It has a span here.
    Own(OwnSpan),
}

/// A request's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSpan {
    /// What whoever is asked next is told: this span is its parent.
    pub context: TraceContext,
    /// The span that it is in, unless the trace begins here.
    pub parent: Option<SpanId>,
    /// When it began.
    pub started: SystemTime,
}

/// Identifiers for a span that may have to be made.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// Of the trace, if it begins here.
    pub trace: TraceId,
    /// Of the span.
    pub span: SpanId,
}

impl RequestTrace {
    /// What becomes of a request with these headers where spans are recorded.
    #[must_use]
    pub fn begin(
        headers: &http::HeaderMap,
        sampling: Sampling,
        fresh: Fresh,
        now: SystemTime,
    ) -> Self {
        let own = |span, state, parent| {
            Self::Own(OwnSpan {
                context: TraceContext { span, state },
                parent,
                started: now,
            })
        };
        match TraceContext::of(headers) {
            Some(parent) if parent.span.sampled() => {
                let span = parent.span.child(fresh.span);
                own(span, parent.state, Some(parent.span.span))
            }
            // Its parent would be a span that nobody has.
            Some(parent) => Self::PassedOn(parent),
            None => {
                let span = SpanContext::begin(fresh.trace, fresh.span, sampling.takes(fresh.trace));
                own(span, TraceState::default(), None)
            }
        }
    }

    /// What becomes of a request with these headers where no spans are recorded.
    #[must_use]
    pub fn pass_on(headers: &http::HeaderMap) -> Self {
        TraceContext::of(headers).map_or(Self::None, Self::PassedOn)
    }

    /// The trace, for the log.
    #[must_use]
    pub fn id(&self) -> Option<TraceId> {
        match self {
            Self::None => None,
            Self::PassedOn(context) => Some(context.span.trace),
            Self::Own(own) => Some(own.context.span.trace),
        }
    }

    /// The span, if it is to be recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<&OwnSpan> {
        match self {
            Self::Own(own) if own.context.span.sampled() => Some(own),
            Self::None | Self::PassedOn(_) | Self::Own(_) => None,
        }
    }

    /// Has whoever is asked next know of the trace.
    pub fn insert_into(&self, headers: &mut http::HeaderMap) {
        if let Self::Own(own) = self {
            own.context.insert_into(headers);
        }
    }
}

#[cfg(test)]
mod tests;
