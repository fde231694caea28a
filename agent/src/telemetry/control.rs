//! Every metric of control, in one registry that it owns.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{Registry, TextEncoder};

use super::{
    collector::{Family, Kind, Observed},
    listeners,
    metrics::{BUILD, MetricsError, PROBLEMS, Page},
    process,
};

const CERTIFICATES: Family = Family {
    name: "ambit_control_certificate_requests_total",
    help: "Requests for certificates, by what became of them.",
    kind: Kind::Counter,
    labels: &["result"],
};
const EVENTS: Family = Family {
    name: "ambit_control_events_total",
    help: "Kubernetes Events, published or not.",
    kind: Kind::Counter,
    labels: &["result"],
};
const CONDITIONS: Family = Family {
    name: "ambit_control_conditions_total",
    help: "Conditions in the status of objects, written or not.",
    kind: Kind::Counter,
    labels: &["result"],
};
const ROTATION_FAILURES: Family = Family {
    name: "ambit_control_root_rotation_failures_total",
    help: "Steps of a rotation of roots that failed; they are tried again, and the roots stay as they were.",
    kind: Kind::Counter,
    labels: &[],
};
const LEADING: Family = Family {
    name: "ambit_control_leading",
    help: "Whether this replica leads.",
    kind: Kind::Gauge,
    labels: &[],
};

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It succeeded.
    Succeeded,
    /// It didn't.
    Failed,
}

impl Done {
    /// By its result.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() {
            Self::Succeeded
        } else {
            Self::Failed
        }
    }
}

/// Counts what succeeded and what didn't. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<[AtomicU64; 2]>);

impl Tally {
    /// Counts one.
    pub fn count(&self, done: Done) {
        self.0[done as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn samples(&self, names: [&'static str; 2]) -> [([&'static str; 1], f64); 2] {
        [0, 1].map(|index| ([names[index]], self.0[index].load(Ordering::Relaxed) as f64))
    }
}

/// Every metric of control.
#[derive(Debug)]
pub struct ControlMetrics {
    registry: Registry,
    certificates: Tally,
    events: Tally,
    conditions: Tally,
}

impl ControlMetrics {
    /// Registers everything that needs no other part of control.
    ///
    /// # Errors
    /// [`MetricsError`], if two metrics clash.
    pub fn new() -> Result<Arc<Self>, MetricsError> {
        let metrics = Self {
            registry: Registry::new(),
            certificates: Tally::default(),
            events: Tally::default(),
            conditions: Tally::default(),
        };
        for (family, tally, names) in [
            (&CERTIFICATES, &metrics.certificates, ["signed", "refused"]),
            (&EVENTS, &metrics.events, ["published", "failed"]),
            (&CONDITIONS, &metrics.conditions, ["written", "failed"]),
        ] {
            let tally = tally.clone();
            let read = move || vec![family.of(tally.samples(names))];
            metrics.register(Observed::new(&[family], read)?)?;
        }
        metrics.register(Observed::new(listeners::FAMILIES, listeners::collect)?)?;
        metrics.register(Observed::new(process::FAMILIES, process::collect)?)?;
        let build = || vec![BUILD.of([([env!("CARGO_PKG_VERSION")], 1.0)])];
        metrics.register(Observed::new(&[&BUILD], build)?)?;
        Ok(Arc::new(metrics))
    }

    /// Reads by `read` at each scrape how many objects can't be used as they are.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_problems(
        &self,
        read: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let read = move || vec![PROBLEMS.single(read() as f64)];
        self.register(Observed::new(&[&PROBLEMS], read)?)
    }

    /// Reads by `read` at each scrape whether this replica leads.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_leading(
        &self,
        read: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let read = move || vec![LEADING.single(f64::from(u8::from(read())))];
        self.register(Observed::new(&[&LEADING], read)?)
    }

    /// Reads by `read` at each scrape how often rotations of roots failed.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_rotation_failures(
        &self,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let read = move || vec![ROTATION_FAILURES.single(read() as f64)];
        self.register(Observed::new(&[&ROTATION_FAILURES], read)?)
    }

    /// Counts the authority's certificates.
    #[must_use]
    pub fn certificates(&self) -> Tally {
        self.certificates.clone()
    }

    /// An Event was to be published.
    pub fn event(&self, done: Done) {
        self.events.count(done);
    }

    /// A condition was to be written.
    pub fn condition(&self, done: Done) {
        self.conditions.count(done);
    }

    fn register(
        &self,
        collector: impl prometheus::core::Collector + 'static,
    ) -> Result<(), MetricsError> {
        Ok(self.registry.register(Box::new(collector))?)
    }
}

impl Page for ControlMetrics {
    fn encode(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}
