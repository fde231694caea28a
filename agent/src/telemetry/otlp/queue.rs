//! Spans that wait to be sent.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::Span;
use crate::telemetry::{
    collector::{Family, Kind},
    metrics::{Metrics, MetricsError},
};

const SPANS: Family = Family {
    name: "ambit_trace_spans_total",
    help: "Spans by what became of them: exported, rejected by the collector, failed to get there, \
           or dropped because too many waited.",
    kind: Kind::Counter,
    labels: &["result"],
};

/// Further ones are dropped. At about 2 KiB each.
const CAPACITY: usize = 4096;

/// A queue, and its other end.
pub(super) fn queue() -> (SpanQueue, Waiting) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let counts = Arc::<SpanCounts>::default();
    let waiting = Waiting {
        receiver,
        first: None,
        counts: counts.clone(),
    };
    (SpanQueue { sender, counts }, waiting)
}

/// Where spans are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpanQueue {
    sender: mpsc::Sender<Box<Span>>,
    counts: Arc<SpanCounts>,
}

impl SpanQueue {
    /// What became of spans.
    #[must_use]
    pub fn counts(&self) -> Arc<SpanCounts> {
        self.counts.clone()
    }

    /// Hands a span over, if there is room. Doesn't wait.
    pub(in crate::telemetry) fn push(&self, span: Span) {
        if self.sender.try_send(Box::new(span)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How many spans were sent, and how many weren't.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    /// Has a page show them.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe(self: Arc<Self>, metrics: &Metrics) -> Result<(), MetricsError> {
        metrics.observe(&[&SPANS], move || {
            let samples = self.read().into_iter();
            vec![SPANS.of(samples.map(|(result, count)| ([result], count as f64)))]
        })
    }

    /// By what became of them.
    pub(super) fn read(&self) -> [(&'static str, u64); 4] {
        [
            ("exported", &self.exported),
            ("rejected", &self.rejected),
            ("failed", &self.failed),
            ("dropped", &self.dropped),
        ]
        .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }

    /// The collector has them, but for those that it didn't want.
    pub(super) fn sent(&self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.exported.fetch_add(count - rejected, Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
    }

    /// The collector couldn't be told.
    pub(super) fn failed(&self, count: u64) {
        self.failed.fetch_add(count, Ordering::Relaxed);
    }
}

/// The other end of a queue.
#[derive(Debug)]
pub(super) struct Waiting {
    receiver: mpsc::Receiver<Box<Span>>,
    /// Taken out to see that there is one.
    first: Option<Box<Span>>,
    counts: Arc<SpanCounts>,
}

impl Waiting {
    pub(super) fn counts(&self) -> &SpanCounts {
        &self.counts
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.receiver.len() + usize::from(self.first.is_some())
    }

    /// Waits until there is one.
    pub(super) async fn any(&mut self) {
        if self.first.is_none() {
            self.first = self.receiver.recv().await;
        }
    }

    /// Takes what is there, up to a limit.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Span> {
        let mut batch: Vec<Span> = self.first.take().map(|span| *span).into_iter().collect();
        while batch.len() < limit
            && let Ok(span) = self.receiver.try_recv()
        {
            batch.push(*span);
        }
        batch
    }

    /// Counts what is there, and what may come yet, as lost.
    pub(super) fn abandon(&mut self) {
        self.receiver.close();
        self.counts.failed(self.len() as u64);
    }
}
