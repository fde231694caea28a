//! What befell the process's listeners. File descriptors are the process's, and so are these counts.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus::proto::MetricFamily;

use super::{
    collector::{Family, Kind},
    log_limit::LogLimit,
};

const ACCEPT_ERRORS: Family = Family {
    name: "ambit_accept_errors_total",
    help: "Connections that couldn't be accepted at once, for want of file descriptors or memory.",
    kind: Kind::Counter,
    labels: &[],
};
const GAVE_WAY: Family = Family {
    name: "ambit_clients_dropped_total",
    help: "Clients of the endpoints for operators, probes and agents' requests that lost their place to a \
           newer one, for there were too many.",
    kind: Kind::Counter,
    labels: &[],
};

pub(super) const FAMILIES: &[&Family] = &[&ACCEPT_ERRORS, &GAVE_WAY];

static ACCEPT_ERRORS_COUNT: AtomicU64 = AtomicU64::new(0);
static GAVE_WAY_COUNT: AtomicU64 = AtomicU64::new(0);
static LOG: LogLimit = LogLimit::of(1);

/// A connection can't be accepted now.
pub(crate) fn accept_failed(error: &io::Error) {
    ACCEPT_ERRORS_COUNT.fetch_add(1, Ordering::Relaxed);
    if let Some(unsaid) = LOG.admit() {
        tracing::warn!(
            unsaid,
            "cannot accept a connection: {error}; what is open goes on, new ones wait"
        );
    }
}

/// A client lost its place.
pub(crate) fn gave_way() {
    GAVE_WAY_COUNT.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn collect() -> Vec<MetricFamily> {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    vec![
        ACCEPT_ERRORS.single(read(&ACCEPT_ERRORS_COUNT)),
        GAVE_WAY.single(read(&GAVE_WAY_COUNT)),
    ]
}
