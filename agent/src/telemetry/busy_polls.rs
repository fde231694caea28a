//! What came of threads that asked for events instead of sleeping. Threads are the process's, and so are these counts.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus::proto::MetricFamily;

use super::collector::{Family, Kind};

const BUSY_POLLS: Family = Family {
    name: "ambit_busy_polls_total",
    help: "How often a thread asked for events instead of sleeping at once (--busy-poll), by what came of it: \
           found, nothing, or displaced by another thread that needed the processor.",
    kind: Kind::Counter,
    labels: &["outcome"],
};

pub(super) const FAMILIES: &[&Family] = &[&BUSY_POLLS];

static FOUND: AtomicU64 = AtomicU64::new(0);
static NOTHING: AtomicU64 = AtomicU64::new(0);
static DISPLACED: AtomicU64 = AtomicU64::new(0);

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is something to do.
    Found,
    /// Nothing came in time.
    Nothing,
    /// Another thread took the processor, for so long.
    Displaced(Duration),
}

pub(crate) fn count(outcome: Outcome) {
    let count = match outcome {
        Outcome::Found => &FOUND,
        Outcome::Nothing => &NOTHING,
        Outcome::Displaced(_) => &DISPLACED,
    };
    count.fetch_add(1, Ordering::Relaxed);
}

/// How often something was found.
#[cfg(test)]
pub(crate) fn found() -> u64 {
    FOUND.load(Ordering::Relaxed)
}

pub(super) fn collect() -> Vec<MetricFamily> {
    let outcomes = [
        ("found", &FOUND),
        ("nothing", &NOTHING),
        ("displaced", &DISPLACED),
    ];
    let samples =
        outcomes.map(|(outcome, count)| ([outcome], count.load(Ordering::Relaxed) as f64));
    vec![BUSY_POLLS.of(samples)]
}
