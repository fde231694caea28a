//! Istio's standard metrics of requests.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use prometheus::proto::MetricFamily;

use super::{
    GrpcStatus, RequestFlags, RequestProtocol, RequestSizes,
    histogram::{BOUNDS, Histogram},
};
use crate::telemetry::{
    collector::{Family, Kind},
    series::{ClusterNames, Labels, SeriesLabels, SeriesMap, traffic_labels},
};

const LABELS: &[&str] = traffic_labels![
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
];

const TOTAL: Family = Family {
    name: "istio_requests_total",
    help: "Requests that waypoints answered, by how.",
    kind: Kind::Counter,
    labels: LABELS,
};
const DURATION: Family = Family {
    name: "istio_request_duration_milliseconds",
    help: "From a request's head to its response's last byte.",
    kind: Kind::Histogram,
    labels: LABELS,
};
const REQUEST_BYTES: Family = Family {
    name: "istio_request_bytes",
    help: "Bytes of requests' bodies.",
    kind: Kind::Histogram,
    labels: LABELS,
};
const RESPONSE_BYTES: Family = Family {
    name: "istio_response_bytes",
    help: "Bytes of responses' bodies.",
    kind: Kind::Histogram,
    labels: LABELS,
};
const SERIES: Family = Family {
    name: "ambit_request_series",
    help: "Label sets of the istio_request metrics that are kept.",
    kind: Kind::Gauge,
    labels: &[],
};
const OVERFLOWED: Family = Family {
    name: "ambit_request_series_overflow_total",
    help: "Requests counted as unknown because the limit of label sets was reached.",
    kind: Kind::Counter,
    labels: &[],
};

/// Which series a request counts in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::telemetry) struct RequestLabels {
    pub(super) traffic: SeriesLabels,
    pub(super) protocol: RequestProtocol,
    pub(super) status: Option<StatusCode>,
    pub(super) grpc_status: Option<GrpcStatus>,
    pub(super) flags: RequestFlags,
}

impl RequestLabels {
    /// Whether the server is at fault, or there was no answer.
    fn is_error(&self) -> bool {
        self.status.is_none_or(|status| status.is_server_error())
            || self.grpc_status.is_some_and(GrpcStatus::is_server_error)
    }

    fn values(&self, names: &ClusterNames) -> Vec<String> {
        let status = self.status.map_or(0, |status| status.as_u16());
        let grpc = self
            .grpc_status
            .filter(|_| self.protocol == RequestProtocol::Grpc);
        let own = [
            self.protocol.as_str().to_owned(),
            status.to_string(),
            grpc.map_or_else(String::new, |status| status.to_string()),
            self.flags.to_string(),
        ];
        self.traffic.values(own, names)
    }
}

impl Labels for RequestLabels {
    /// Between whom is lost, but not how many fail: the status is the first of its class.
    fn unknown(&self) -> Self {
        let class = |status: StatusCode| StatusCode::from_u16(status.as_u16() / 100 * 100).ok();
        Self {
            traffic: SeriesLabels::unknown(self.traffic.reporter),
            protocol: self.protocol,
            status: self.status.and_then(class),
            grpc_status: None,
            flags: RequestFlags::NONE,
        }
    }
}

/// The measures of one set of labels.
#[derive(Debug, Default)]
struct Measures {
    /// Of milliseconds; its count is that of requests.
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// What several series have together.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Sums {
    /// By [`Self::bounds`], and what is above all of them.
    pub(in crate::telemetry) durations: Vec<u64>,
    /// Whose answers say that the server is at fault, and those without an answer.
    pub(in crate::telemetry) errors: u64,
    /// That policy refused.
    pub(in crate::telemetry) denied: u64,
}

impl Sums {
    /// Of durations, in milliseconds.
    pub(in crate::telemetry) fn bounds() -> &'static [f64] {
        &BOUNDS
    }

    fn add(&mut self, labels: &RequestLabels, durations: &Histogram) {
        self.durations.resize(BOUNDS.len() + 1, 0);
        let mut count = 0;
        for (sum, class) in self.durations.iter_mut().zip(durations.classes()) {
            *sum += class;
            count += class;
        }
        if labels.flags.contains(RequestFlags::UNAUTHORIZED) {
            self.denied += count;
        } else if labels.is_error() {
            self.errors += count;
        }
    }
}

/// Every series.
#[derive(Debug)]
pub(in crate::telemetry) struct Requests {
    names: ClusterNames,
    series: SeriesMap<RequestLabels, Measures>,
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Requests {
    pub(in crate::telemetry) const FAMILIES: &[&Family] = &[
        &TOTAL,
        &DURATION,
        &REQUEST_BYTES,
        &RESPONSE_BYTES,
        &SERIES,
        &OVERFLOWED,
    ];

    pub(in crate::telemetry) fn new(names: ClusterNames, limit: usize, idle: Duration) -> Self {
        Self {
            names,
            series: SeriesMap::new(limit, idle),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// What the cluster is called.
    pub(super) fn names(&self) -> &ClusterNames {
        &self.names
    }

    /// A request has come in.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have come in so far, and how many of them haven't ended.
    pub(in crate::telemetry) fn activity(&self) -> (u64, u64) {
        // In this order: one that ends in between counts as under way, and none for less than nothing.
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Relaxed);
        (begun, begun.saturating_sub(ended))
    }

    /// Counts a request that has ended.
    pub(super) fn record(&self, labels: &RequestLabels, duration: Duration, sizes: &RequestSizes) {
        let series = self.series.find(labels);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        series.duration.observe(micros);
        let thousandths = |bytes: u64| bytes.saturating_mul(1_000);
        series.request_bytes.observe(thousandths(sizes.request()));
        series.response_bytes.observe(thousandths(sizes.response()));
        self.series.touch(&series, Instant::now());
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// What the series tell of each pair of ends, however its requests ended.
    pub(in crate::telemetry) fn sums(&self) -> HashMap<SeriesLabels, Sums> {
        let mut sums = HashMap::<_, Sums>::new();
        for (labels, measures) in self.series.all() {
            let sum = sums.entry(labels.traffic.clone()).or_default();
            sum.add(&labels, &measures.duration);
        }
        sums
    }

    /// The families as of now. Then forgets the series that were idle for too long, so that each
    /// was read at least once with its last value.
    pub(in crate::telemetry) fn collect(&self, now: Instant) -> Vec<MetricFamily> {
        let series = self.series.all();
        let count = series.len() as f64;
        let series = series.into_iter().map(|(labels, measures)| {
            let labels = labels.values(&self.names);
            (labels, measures)
        });
        let series: Vec<(Vec<String>, Arc<_>)> = series.collect();
        let total = series
            .iter()
            .map(|(labels, measures)| (labels.clone(), measures.duration.count() as f64));
        let histogram = |family: &Family, of: fn(&Measures) -> &Histogram| {
            let read = series
                .iter()
                .map(|(labels, measures)| (labels.clone(), of(measures).read()));
            family.histograms(read)
        };
        let mut families = vec![
            TOTAL.of(total),
            histogram(&DURATION, |measures| &measures.duration),
            histogram(&REQUEST_BYTES, |measures| &measures.request_bytes),
            histogram(&RESPONSE_BYTES, |measures| &measures.response_bytes),
        ];
        drop(series);
        self.series.forget_idle(now);
        families.push(SERIES.single(count));
        families.push(OVERFLOWED.single(self.series.overflowed() as f64));
        families
    }
}
