//! Istio's standard TCP metrics.
//!
//! Series are bounded in two ways. One that no open connection uses is dropped after an idle
//! time (a workload's series must survive its quiet hours, and PromQL's `rate` takes the later
//! restart from zero for the counter reset that it is); and there are never more than a limit,
//! beyond which connections count under a series that says `unknown` throughout.

mod labels;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::proto::MetricFamily;

use self::labels::LABELS;
pub(super) use self::labels::{Peer, SeriesLabels};
use super::{
    ResponseFlags, Transfer,
    collector::{Family, Kind},
};
use crate::{discovery::model::ObjectName, sharded::Sharded};

const OPENED: Family = Family {
    name: "istio_tcp_connections_opened_total",
    help: "TCP connections opened.",
    kind: Kind::Counter,
    labels: LABELS,
};
const CLOSED: Family = Family {
    name: "istio_tcp_connections_closed_total",
    help: "TCP connections closed, by how they ended.",
    kind: Kind::Counter,
    labels: LABELS,
};
const SENT: Family = Family {
    name: "istio_tcp_sent_bytes_total",
    help: "Bytes from server to client.",
    kind: Kind::Counter,
    labels: LABELS,
};
const RECEIVED: Family = Family {
    name: "istio_tcp_received_bytes_total",
    help: "Bytes from client to server.",
    kind: Kind::Counter,
    labels: LABELS,
};
const SERIES: Family = Family {
    name: "ambit_traffic_series",
    help: "Label sets of the istio_tcp metrics that are kept.",
    kind: Kind::Gauge,
    labels: &[],
};
const OVERFLOWED: Family = Family {
    name: "ambit_traffic_series_overflow_total",
    help: "Connections counted as unknown because the limit of label sets was reached.",
    kind: Kind::Counter,
    labels: &[],
};

/// The counters of one set of labels.
#[derive(Debug, Default)]
struct Series {
    opened: AtomicU64,
    closed: [AtomicU64; ResponseFlags::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
    /// Milliseconds since [`Traffic::start`].
    touched: AtomicU64,
}

/// An open connection, whose bytes are taken into its series at every scrape.
#[derive(Debug)]
struct Live {
    series: Arc<Series>,
    transfer: Arc<Transfer>,
    counted: Counted,
}

/// What of a transfer is in its series already.
#[derive(Debug, Default)]
struct Counted {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Live {
    /// Adds what moved since the last call. Two calls at once count nothing twice: each adds only
    /// what it raised `counted` by.
    fn flush(&self) {
        let flush = |total: u64, counted: &AtomicU64, series: &AtomicU64| {
            let before = counted.fetch_max(total, Ordering::Relaxed);
            series.fetch_add(total.saturating_sub(before), Ordering::Relaxed);
        };
        let (counted, series) = (&self.counted, &self.series);
        flush(self.transfer.sent(), &counted.sent, &series.sent);
        flush(
            self.transfer.received(),
            &counted.received,
            &series.received,
        );
    }
}

/// The right to count one connection; handed back to [`Traffic::close`].
#[derive(Debug)]
pub(super) struct Opened {
    key: u64,
    live: Arc<Live>,
}

/// Every series, and the open connections that feed them.
#[derive(Debug)]
pub(super) struct Traffic {
    cluster: Arc<str>,
    cluster_domain: Arc<str>,
    limit: usize,
    idle: Duration,
    start: Instant,
    series: Mutex<HashMap<SeriesLabels, Arc<Series>>>,
    live: Sharded<Live>,
    overflowed: AtomicU64,
}

impl Traffic {
    pub(super) const FAMILIES: &[&Family] =
        &[&OPENED, &CLOSED, &SENT, &RECEIVED, &SERIES, &OVERFLOWED];

    pub(super) fn new(
        cluster: Arc<str>,
        cluster_domain: Arc<str>,
        limit: usize,
        idle: Duration,
    ) -> Self {
        Self {
            cluster,
            cluster_domain,
            limit,
            idle,
            start: Instant::now(),
            series: Mutex::default(),
            live: Sharded::default(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// The service's DNS name.
    pub(super) fn service_host(&self, service: &ObjectName) -> String {
        service.service_host(&self.cluster_domain)
    }

    /// Counts a connection as opened, and its bytes from here on.
    pub(super) fn open(&self, labels: SeriesLabels, transfer: Arc<Transfer>) -> Opened {
        let series = self.find(labels);
        series.opened.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live {
            series,
            transfer,
            counted: Counted::default(),
        });
        let key = self.live.insert(live.clone());
        Opened { key, live }
    }

    /// Counts the connection as closed, and the bytes that no scrape has seen yet.
    pub(super) fn close(&self, opened: &Opened, flags: ResponseFlags) {
        self.live.remove(opened.key);
        opened.live.flush();
        let series = &opened.live.series;
        series.closed[flags.index()].fetch_add(1, Ordering::Relaxed);
        series
            .touched
            .store(self.millis_at(Instant::now()), Ordering::Relaxed);
    }

    /// The families as of now. Then forgets the series that were idle for too long, so that each
    /// was read at least once with its last value.
    pub(super) fn collect(&self, now: Instant) -> Vec<MetricFamily> {
        self.live.for_each(|live| live.flush());
        let (mut opened, mut closed, mut sent, mut received) = (vec![], vec![], vec![], vec![]);
        let series: Vec<_> = {
            let known = self.lock();
            known.iter().map(|(l, s)| (l.clone(), s.clone())).collect()
        };
        let count = series.len();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        for (labels, series) in series {
            let values = labels.values(ResponseFlags::None, self);
            for flags in ResponseFlags::ALL {
                let value = read(&series.closed[flags.index()]);
                // Zero is said only of ordinary ends: a series for each way to fail that never
                // happened would multiply the page by seven.
                if flags == ResponseFlags::None || value > 0.0 {
                    closed.push((labels.values(flags, self), value));
                }
            }
            opened.push((values.clone(), read(&series.opened)));
            sent.push((values.clone(), read(&series.sent)));
            received.push((values, read(&series.received)));
        }
        self.forget_idle(now);
        let count = count as f64;
        vec![
            OPENED.of(opened),
            CLOSED.of(closed),
            SENT.of(sent),
            RECEIVED.of(received),
            SERIES.single(count),
            OVERFLOWED.single(read(&self.overflowed)),
        ]
    }

    fn find(&self, labels: SeriesLabels) -> Arc<Series> {
        let mut known = self.lock();
        if let Some(series) = known.get(&labels) {
            return series.clone();
        }
        if known.len() < self.limit {
            return known.entry(labels).or_default().clone();
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let unknown = SeriesLabels::unknown(labels.reporter);
        known.entry(unknown).or_default().clone()
    }

    fn forget_idle(&self, now: Instant) {
        let now = self.millis_at(now);
        let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        // One reference is the map's own. More can't appear meanwhile: only the holder of this
        // lock, or of another reference, makes one.
        self.lock().retain(|_, series| {
            let touched = series.touched.load(Ordering::Relaxed);
            Arc::strong_count(series) > 1 || now.saturating_sub(touched) < idle
        });
    }

    fn millis_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SeriesLabels, Arc<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
