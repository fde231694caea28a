//! Istio's standard TCP metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::proto::MetricFamily;

use super::{
    ConnectionDescription, ResponseFlags, Transfer,
    collector::{Family, Kind},
    series::{ClusterNames, Labels, Series, SeriesLabels, SeriesMap, traffic_labels},
};
use crate::sharded::Sharded;

const LABELS: &[&str] = traffic_labels!["request_protocol", "response_flags"];

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
pub(super) struct Counters {
    pub(super) opened: AtomicU64,
    pub(super) closed: [AtomicU64; ResponseFlags::ALL.len()],
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// Of those opened, which never leave the node, as the client's agent knows.
    pub(super) local: AtomicU64,
    /// Of those opened, which pass without the agent.
    pub(super) passed: AtomicU64,
    /// Connections whose path TCP has measured.
    pub(super) measured: AtomicU64,
    /// Microseconds, the sum over those.
    pub(super) round_trips: AtomicU64,
    /// The sum over those.
    pub(super) retransmitted: AtomicU64,
}

impl Labels for SeriesLabels {
    fn unknown(&self) -> Self {
        Self::unknown(self.reporter)
    }
}

/// An open connection, whose bytes are taken into its series at every scrape.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) description: ConnectionDescription,
    pub(super) transfer: Arc<Transfer>,
    pub(super) started: Instant,
    series: Arc<Series<Counters>>,
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
    pub(super) key: u64,
    pub(super) live: Arc<Live>,
}

/// Every series, and the open connections that feed them.
#[derive(Debug)]
pub(super) struct Traffic {
    names: ClusterNames,
    series: SeriesMap<SeriesLabels, Counters>,
    live: Sharded<Live>,
}

impl Traffic {
    pub(super) const FAMILIES: &[&Family] =
        &[&OPENED, &CLOSED, &SENT, &RECEIVED, &SERIES, &OVERFLOWED];

    pub(super) fn new(names: ClusterNames, limit: usize, idle: Duration) -> Self {
        Self {
            names,
            series: SeriesMap::new(limit, idle),
            live: Sharded::default(),
        }
    }

    /// What the cluster is called.
    pub(super) fn names(&self) -> &ClusterNames {
        &self.names
    }

    /// Counts a connection as opened, which it was at that time, and its bytes from here on.
    pub(super) fn open(
        &self,
        description: ConnectionDescription,
        transfer: Arc<Transfer>,
        started: Instant,
    ) -> Opened {
        let series = self.series.find(&SeriesLabels::of(&description));
        series.opened.fetch_add(1, Ordering::Relaxed);
        for (counter, is_so) in [
            (&series.local, description.is_local()),
            (&series.passed, description.passed),
        ] {
            counter.fetch_add(is_so.into(), Ordering::Relaxed);
        }
        let live = Arc::new(Live {
            description,
            transfer,
            started,
            series,
            counted: Counted::default(),
        });
        let key = self.live.insert(live.clone());
        Opened { key, live }
    }

    /// Every connection that is open, with its key.
    pub(super) fn opened(&self) -> Vec<Opened> {
        let mut all = Vec::with_capacity(self.live.len());
        self.live.for_each_key(|key, live| {
            let live = live.clone();
            all.push(Opened { key, live });
        });
        all
    }

    /// Every series, with the bytes of open connections up to now.
    pub(super) fn series(&self) -> Vec<(SeriesLabels, Arc<Series<Counters>>)> {
        self.live.for_each(|live| live.flush());
        self.series.all()
    }

    /// Counts the connection as closed, and the bytes that no scrape has seen yet.
    pub(super) fn close(&self, opened: &Opened, flags: ResponseFlags) {
        self.live.remove(opened.key);
        opened.live.flush();
        let series = &opened.live.series;
        series.closed[flags.index()].fetch_add(1, Ordering::Relaxed);
        if let Some(path) = opened.live.transfer.path() {
            let add = |counter: &AtomicU64, value: u32| {
                counter.fetch_add(value.into(), Ordering::Relaxed);
            };
            add(&series.measured, 1);
            add(&series.round_trips, path.round_trip);
            add(&series.retransmitted, path.retransmitted);
        }
        self.series.touch(series, Instant::now());
    }

    /// The families as of now. Then forgets the series that were idle for too long, so that each
    /// was read at least once with its last value.
    pub(super) fn collect(&self, now: Instant) -> Vec<MetricFamily> {
        let (mut opened, mut closed, mut sent, mut received) = (vec![], vec![], vec![], vec![]);
        let series = self.series();
        let count = series.len();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        for (labels, series) in series {
            let values = |flags: ResponseFlags| {
                labels.values(["tcp", flags.as_str()].map(Into::into), &self.names)
            };
            for flags in ResponseFlags::ALL {
                let value = read(&series.closed[flags.index()]);
                // Zero is said only of ordinary ends: a series for each way to fail that never
                // happened would multiply the page by seven.
                if flags == ResponseFlags::None || value > 0.0 {
                    closed.push((values(flags), value));
                }
            }
            let values = values(ResponseFlags::None);
            opened.push((values.clone(), read(&series.opened)));
            sent.push((values.clone(), read(&series.sent)));
            received.push((values, read(&series.received)));
        }
        self.series.forget_idle(now);
        let (count, overflowed) = (count as f64, self.series.overflowed() as f64);
        vec![
            OPENED.of(opened),
            CLOSED.of(closed),
            SENT.of(sent),
            RECEIVED.of(received),
            SERIES.single(count),
            OVERFLOWED.single(overflowed),
        ]
    }
}

#[cfg(test)]
mod tests;
