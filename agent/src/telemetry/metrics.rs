//! Every metric of an agent, in one registry that it owns.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use ambit_common::passed::Path;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector, proto::MetricFamily,
};

use super::{
    Direction, busy_polls,
    collector::{Family, Kind, Observed},
    denials::{DENIALS, Denials},
    flows::Flows,
    listeners,
    open_count::OpenCount,
    process,
    refusals::{self, Refusal, Refusals, TunnelRefusal},
    requests::Requests,
    series::ClusterNames,
    traffic::Traffic,
};
use crate::{
    discovery::model::ObjectName, identity::certificates::CertificateState, policy::Denied,
};

const CAPTURE: Family = Family {
    name: "ambit_capture_packets_total",
    help: "Packets by what the eBPF programs did with them, and why.",
    kind: Kind::Counter,
    labels: &["reason"],
};
const SPLICE: Family = Family {
    name: "ambit_splice_events_total",
    help: "What became of sockets, and of messages of spliced ones, in the splice.",
    kind: Kind::Counter,
    labels: &["event"],
};
const SPLICE_ACTIVE: Family = Family {
    name: "ambit_splice_active",
    help: "Whether sockets are spliced: 0 if the self-test failed, or nobody wants it.",
    kind: Kind::Gauge,
    labels: &[],
};
const LEFT_OUT: Family = Family {
    name: "ambit_capture_entries_left_out",
    help: "Addresses and VIPs that the eBPF maps have no room for. Above 0 every connection of \
           enrolled pods is captured.",
    kind: Kind::Gauge,
    labels: &[],
};
const LOG_DROPS: Family = Family {
    name: "ambit_log_lines_dropped_total",
    help: "Log lines, the access log's among them, dropped because standard error was too slow, or refused \
           them as a full disk does.",
    kind: Kind::Counter,
    labels: &[],
};
const CERTIFICATE_EXPIRY: Family = Family {
    name: "ambit_certificate_expiry_timestamp_seconds",
    help: "When the certificate in use expires, in seconds since 1970.",
    kind: Kind::Gauge,
    labels: &["identity"],
};
const RENEWAL_FAILURES: Family = Family {
    name: "ambit_certificate_renewal_failures_total",
    help: "Certificate requests that brought no certificate.",
    kind: Kind::Counter,
    labels: &["identity"],
};
pub(super) const PROBLEMS: Family = Family {
    name: "ambit_manifest_problems",
    help: "Objects that can't be used as they are; their last good state serves on.",
    kind: Kind::Gauge,
    labels: &[],
};
const OUTBOUND_TUNNELS: Family = Family {
    name: "ambit_outbound_tunnels_open",
    help: "HBONE connections that this agent opened to others.",
    kind: Kind::Gauge,
    labels: &[],
};
pub(super) const BUILD: Family = Family {
    name: "ambit_build_info",
    help: "Always 1; the label says which version this is.",
    kind: Kind::Gauge,
    labels: &["version"],
};

/// In seconds, from pods of one node to the other end of the world; each four times the one before.
const ROUND_TRIPS: [f64; 10] = [
    0.000_01, 0.000_04, 0.000_16, 0.000_64, 0.002_56, 0.010_24, 0.040_96, 0.163_84, 0.655_36,
    2.621_44,
];

/// Settings of [`Metrics`].
#[derive(Debug, Clone)]
pub struct MetricsOptions {
    /// Labels `source_cluster` and `destination_cluster`. Default: `Kubernetes`, as Istio's.
    pub cluster: Arc<str>,
    /// The end of services' names. Default: `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// Distinct pairs of workloads, services and identities that the `istio_tcp` metrics tell
    /// apart. Default: 2,000; each takes about 4 KiB of a scrape's page.
    pub series_limit: usize,
    /// The same for the `istio_request` metrics, which tell apart what became of requests too.
    /// Default: 500; each takes about 50 KiB of a scrape's page, for Istio's histograms are long.
    pub request_series_limit: usize,
    /// How long a pair without an open connection is still shown. Default: 1 h. Must be longer
    /// than the scrape interval by far, or counts are lost.
    pub series_idle: Duration,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self {
            cluster: "Kubernetes".into(),
            cluster_domain: "cluster.local".into(),
            series_limit: 2_000,
            request_series_limit: 500,
            series_idle: Duration::from_secs(3600),
        }
    }
}

/// A metric that the registry refused, or a page that couldn't be written.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}; this is a fault of Ambit, not of its configuration: please report it")]
pub struct MetricsError(#[from] prometheus::Error);

/// What `/metrics` serves.
pub trait Page: Send + Sync + 'static {
    /// The page, in Prometheus's text format 0.0.4.
    ///
    /// May take milliseconds: not for an async worker thread.
    ///
    /// # Errors
    /// [`MetricsError`], if a metric can't be written.
    fn encode(&self) -> Result<String, MetricsError>;
}

/// Every metric of an agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) traffic: Arc<Traffic>,
    pub(super) requests: Arc<Requests>,
    pub(super) flows: Arc<Flows>,
    denials: Arc<Denials>,
    refusals: Arc<Refusals>,
    pub(super) connections_open: IntGaugeVec,
    round_trips: HistogramVec,
    retransmitted: IntCounterVec,
    tunnels_open: IntGauge,
    missing_waypoints: IntCounterVec,
    /// One page is written at a time, so that many scrapers cost no more memory than one.
    scrape: Mutex<()>,
}

impl Metrics {
    /// Registers everything that needs no other part of the agent.
    ///
    /// # Errors
    /// [`MetricsError`], if two metrics clash.
    pub fn new(options: MetricsOptions) -> Result<Arc<Self>, MetricsError> {
        let names = ClusterNames {
            cluster: options.cluster,
            domain: options.cluster_domain,
        };
        let (limit, idle) = (options.series_limit, options.series_idle);
        let traffic = Arc::new(Traffic::new(names.clone(), limit, idle));
        let requests = Arc::new(Requests::new(names, options.request_series_limit, idle));
        let metrics = Self {
            registry: Registry::new(),
            traffic: traffic.clone(),
            requests: requests.clone(),
            flows: Arc::default(),
            denials: Arc::default(),
            refusals: Arc::default(),
            connections_open: by_direction(
                "ambit_connections_open",
                "Application connections that are open through the agent.",
            )?,
            round_trips: HistogramVec::new(
                HistogramOpts::new(
                    "ambit_tcp_round_trip_seconds",
                    "Smoothed round trip time of connections at their end, where TCP's own measure \
                     is known: between nodes, and from pod to pod without the agent.",
                )
                .buckets(ROUND_TRIPS.to_vec()),
                &["direction"],
            )?,
            retransmitted: IntCounterVec::new(
                Opts::new(
                    "ambit_tcp_retransmitted_segments_total",
                    "Segments that the same connections sent again.",
                ),
                &["direction"],
            )?,
            tunnels_open: IntGauge::new(
                "ambit_inbound_tunnels_open",
                "HBONE connections that other agents opened to this one.",
            )?,
            missing_waypoints: IntCounterVec::new(
                Opts::new(
                    "ambit_waypoint_missing_total",
                    "Connections whose waypoint wasn't ready, by what became of them.",
                ),
                &["waypoint", "decision"],
            )?,
            scrape: Mutex::default(),
        };
        metrics.register(metrics.missing_waypoints.clone())?;
        metrics.register(metrics.connections_open.clone())?;
        metrics.register(metrics.round_trips.clone())?;
        metrics.register(metrics.retransmitted.clone())?;
        metrics.register(metrics.tunnels_open.clone())?;
        metrics.observe(Traffic::FAMILIES, move || traffic.collect(Instant::now()))?;
        metrics.observe(Requests::FAMILIES, move || requests.collect(Instant::now()))?;
        let (flows, denials) = (metrics.flows.clone(), metrics.denials.clone());
        metrics.observe(Flows::FAMILIES, move || flows.collect())?;
        metrics.observe(&[&DENIALS], move || vec![denials.collect()])?;
        let refused = metrics.refusals.clone();
        metrics.observe(refusals::FAMILIES, move || refused.collect())?;
        metrics.observe(listeners::FAMILIES, listeners::collect)?;
        metrics.observe(busy_polls::FAMILIES, busy_polls::collect)?;
        metrics.observe(process::FAMILIES, process::collect)?;
        let build = || vec![BUILD.of([([env!("CARGO_PKG_VERSION")], 1.0)])];
        metrics.observe(&[&BUILD], build)?;
        Ok(Arc::new(metrics))
    }

    /// Reads the eBPF programs' counters by `read` at each scrape: reasons and packets.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_capture(
        &self,
        read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&CAPTURE], move || {
            let samples = read().into_iter();
            vec![CAPTURE.of(samples.map(|(reason, count)| ([reason], count as f64)))]
        })
    }

    /// Reads the splice's counters, by event, with `read` at each scrape. `active`: it is on.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_splice(
        &self,
        active: bool,
        read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&SPLICE_ACTIVE, &SPLICE], move || {
            let samples = read().into_iter();
            vec![
                SPLICE_ACTIVE.single(f64::from(u8::from(active))),
                SPLICE.of(samples.map(|(event, count)| ([event], count as f64))),
            ]
        })
    }

    /// Reads how many entries the eBPF programs' maps have no room for by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_left_out(
        &self,
        read: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&LEFT_OUT], move || vec![LEFT_OUT.single(read() as f64)])
    }

    /// Reads the number of dropped log lines by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_log_drops(
        &self,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&LOG_DROPS], move || vec![LOG_DROPS.single(read() as f64)])
    }

    /// Reads the state of certificates by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_certificates(
        &self,
        read: impl Fn() -> Vec<CertificateState> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&CERTIFICATE_EXPIRY, &RENEWAL_FAILURES], move || {
            let states = read();
            let expiry = states.iter().filter_map(|state| {
                let expires = state.certificate.as_ref()?.not_after();
                let since_1970 = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
                Some(([state.identity.to_string()], since_1970.as_secs_f64()))
            });
            let failures = states
                .iter()
                .map(|state| ([state.identity.to_string()], state.failures as f64));
            vec![CERTIFICATE_EXPIRY.of(expiry), RENEWAL_FAILURES.of(failures)]
        })
    }

    /// Another agent opened a tunnel; drop the value when it is closed.
    #[must_use]
    pub fn inbound_tunnel_opened(&self) -> OpenCount {
        OpenCount::new(self.tunnels_open.clone())
    }

    /// Tunnels that other agents have open to this one.
    #[must_use]
    pub fn inbound_tunnels(&self) -> usize {
        usize::try_from(self.tunnels_open.get()).unwrap_or(0)
    }

    /// Reads how many objects are unusable by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_problems(
        &self,
        read: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&PROBLEMS], move || vec![PROBLEMS.single(read() as f64)])
    }

    /// Reads how many tunnels to other agents are open by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_tunnels(
        &self,
        read: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.observe(&[&OUTBOUND_TUNNELS], move || {
            vec![OUTBOUND_TUNNELS.single(read() as f64)]
        })
    }

    /// A connection's waypoint isn't ready.
    pub fn waypoint_missing(&self, waypoint: &ObjectName, decision: &str) {
        self.missing_waypoints
            .with_label_values(&[waypoint.to_string().as_str(), decision])
            .inc();
    }

    pub(super) fn connection_opened(&self, direction: Direction) -> OpenCount {
        OpenCount::new(
            self.connections_open
                .with_label_values(&[direction.as_str()]),
        )
    }

    /// A connection has ended, of which TCP has measured the path.
    pub(super) fn measured(&self, direction: Direction, path: Path) {
        let direction = [direction.as_str()];
        let seconds = f64::from(path.round_trip) / 1e6;
        self.round_trips
            .with_label_values(&direction)
            .observe(seconds);
        self.retransmitted
            .with_label_values(&direction)
            .inc_by(path.retransmitted.into());
    }

    pub(super) fn denied(&self, denied: &Denied) {
        self.denials.count(denied);
    }

    /// A connection was one too many.
    pub fn connection_refused(&self, refusal: &Refusal<'_>) {
        self.refusals.connection(refusal);
    }

    /// A connection became no tunnel.
    pub fn tunnel_refused(&self, refusal: TunnelRefusal) {
        self.refusals.tunnel(refusal);
    }

    pub(super) fn observe(
        &self,
        families: &[&Family],
        read: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.register(Observed::new(families, read)?)
    }

    fn register(&self, collector: impl Collector + 'static) -> Result<(), MetricsError> {
        Ok(self.registry.register(Box::new(collector))?)
    }
}

impl Page for Metrics {
    fn encode(&self) -> Result<String, MetricsError> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// A gauge for each direction, both shown from the start.
fn by_direction(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &["direction"])?;
    for direction in [Direction::Inbound, Direction::Outbound] {
        gauges.with_label_values(&[direction.as_str()]).set(0);
    }
    Ok(gauges)
}

#[cfg(test)]
mod tests;
