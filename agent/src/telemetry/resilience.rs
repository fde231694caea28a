//! What resilience did, by service.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus::proto::MetricFamily;

use super::{
    collector::{Family, Kind},
    metrics::{Metrics, MetricsError},
};
use crate::{
    discovery::model::ObjectName,
    waypoint::resilience::{CircuitLimit, EjectionCause, FaultKind},
};

const EJECTIONS: Family = Family {
    name: "ambit_waypoint_ejections_total",
    help: "Endpoints that were left out for a while, by cause.",
    kind: Kind::Counter,
    labels: &["service", "cause"],
};
const OVERFLOWS: Family = Family {
    name: "ambit_waypoint_overflow_total",
    help: "What was refused because a limit of the circuit breaker was reached.",
    kind: Kind::Counter,
    labels: &["service", "limit"],
};
const RETRIES: Family = Family {
    name: "ambit_waypoint_retries_total",
    help: "Requests that were sent again, and those that weren't because the budget was spent.",
    kind: Kind::Counter,
    labels: &["service", "result"],
};
const RATE_LIMITED: Family = Family {
    name: "ambit_waypoint_rate_limited_total",
    help: "Requests that were answered with 429.",
    kind: Kind::Counter,
    labels: &["service"],
};
const FAULTS: Family = Family {
    name: "ambit_waypoint_faults_total",
    help: "Faults that a TrafficPolicy put into requests.",
    kind: Kind::Counter,
    labels: &["service", "kind"],
};

const EJECTED: Family = Family {
    name: "ambit_waypoint_ejected_endpoints",
    help: "Endpoints that are left out now, of all ports of the service.",
    kind: Kind::Gauge,
    labels: &["service"],
};

/// Counts what resilience did. A service that is forgotten takes no memory.
#[derive(Debug, Default)]
pub struct ResilienceMetrics(Mutex<BTreeMap<ObjectName, Arc<ResilienceCounts>>>);

/// The counts of one service.
#[derive(Debug, Default)]
pub struct ResilienceCounts([AtomicU64; EVENTS.len()]);

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResilienceEvent {
    /// An endpoint was left out.
    Ejected(EjectionCause),
    /// Something was refused by the circuit breaker.
    Overflowed(CircuitLimit),
    /// A request was to be sent again.
    Retried(RetryResult),
    /// A request was answered with 429.
    RateLimited,
    /// A fault was put into a request.
    Fault(FaultKind),
}

/// What came of sending a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryResult {
    /// An answer that needs no further retry.
    Success,
    /// Another failure.
    Failure,
    /// It wasn't sent, as the budget is spent.
    BudgetSpent,
}

/// All of them, each at its own [`ResilienceEvent::place`].
const EVENTS: [ResilienceEvent; 11] = [
    ResilienceEvent::Ejected(EjectionCause::ConsecutiveErrors),
    ResilienceEvent::Ejected(EjectionCause::SuccessRate),
    ResilienceEvent::Overflowed(CircuitLimit::Connections),
    ResilienceEvent::Overflowed(CircuitLimit::Pending),
    ResilienceEvent::Overflowed(CircuitLimit::Requests),
    ResilienceEvent::Retried(RetryResult::Success),
    ResilienceEvent::Retried(RetryResult::Failure),
    ResilienceEvent::Retried(RetryResult::BudgetSpent),
    ResilienceEvent::RateLimited,
    ResilienceEvent::Fault(FaultKind::Delay),
    ResilienceEvent::Fault(FaultKind::Abort),
];

impl ResilienceEvent {
    fn place(self) -> usize {
        match self {
            Self::Ejected(EjectionCause::ConsecutiveErrors) => 0,
            Self::Ejected(EjectionCause::SuccessRate) => 1,
            Self::Overflowed(CircuitLimit::Connections) => 2,
            Self::Overflowed(CircuitLimit::Pending) => 3,
            Self::Overflowed(CircuitLimit::Requests) => 4,
            Self::Retried(RetryResult::Success) => 5,
            Self::Retried(RetryResult::Failure) => 6,
            Self::Retried(RetryResult::BudgetSpent) => 7,
            Self::RateLimited => 8,
            Self::Fault(FaultKind::Delay) => 9,
            Self::Fault(FaultKind::Abort) => 10,
        }
    }

    /// Its family, and what it says there beside the service.
    fn series(self) -> (&'static Family, Option<&'static str>) {
        match self {
            Self::Ejected(cause) => (&EJECTIONS, Some(cause.as_str())),
            Self::Overflowed(limit) => (&OVERFLOWS, Some(limit.as_str())),
            Self::Retried(result) => (&RETRIES, Some(result.as_str())),
            Self::RateLimited => (&RATE_LIMITED, None),
            Self::Fault(kind) => (&FAULTS, Some(kind.as_str())),
        }
    }
}

impl RetryResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::BudgetSpent => "budget_spent",
        }
    }
}

impl ResilienceCounts {
    /// Counts one.
    pub fn count(&self, event: ResilienceEvent) {
        self.0[event.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn counted(&self, event: ResilienceEvent) -> u64 {
        self.0[event.place()].load(Ordering::Relaxed)
    }
}

impl ResilienceMetrics {
    const FAMILIES: &[&Family] = &[&EJECTIONS, &OVERFLOWS, &RETRIES, &RATE_LIMITED, &FAULTS];

    /// Enters them in a registry.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn register(metrics: &Metrics) -> Result<Arc<Self>, MetricsError> {
        let own = Arc::<Self>::default();
        let read = own.clone();
        metrics.observe(Self::FAMILIES, move || read.collect())?;
        Ok(own)
    }

    /// Reads how many endpoints of each service are left out by `read` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`], if it is called twice.
    pub fn observe_ejected(
        metrics: &Metrics,
        read: impl Fn() -> Vec<(ObjectName, usize)> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        metrics.observe(&[&EJECTED], move || {
            let services = read().into_iter();
            let samples = services.map(|(service, count)| ([service.to_string()], count as f64));
            vec![EJECTED.of(samples)]
        })
    }

    /// The counts of a service.
    #[must_use]
    pub fn of(&self, service: &ObjectName) -> Arc<ResilienceCounts> {
        self.lock().entry(service.clone()).or_default().clone()
    }

    /// Shows a service no longer.
    pub fn forget(&self, service: &ObjectName) {
        self.lock().remove(service);
    }

    /// What has happened at least once.
    fn collect(&self) -> Vec<MetricFamily> {
        let services = self.lock().clone();
        let families = Self::FAMILIES.iter().map(|family| {
            let of_family = services.iter().flat_map(|(service, counts)| {
                EVENTS.iter().filter_map(move |event| {
                    let (its_family, label) = event.series();
                    let count = counts.counted(*event);
                    let is_shown = its_family.name == family.name && count > 0;
                    let labels = [Some(service.to_string()), label.map(str::to_owned)];
                    is_shown.then(|| (labels.into_iter().flatten(), count as f64))
                })
            });
            family.of(of_family)
        });
        families.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Arc<ResilienceCounts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{MetricsOptions, Page};

    #[test]
    fn each_event_is_counted_under_a_series_of_its_own_until_the_service_is_forgotten() {
        let metrics = Metrics::new(MetricsOptions::default()).unwrap();
        let resilience = ResilienceMetrics::register(&metrics).unwrap();
        let name = |name: &str| ObjectName {
            namespace: "shop".into(),
            name: name.into(),
        };
        let _nothing_happened = resilience.of(&name("idle"));
        for (index, event) in EVENTS.into_iter().enumerate() {
            (0..=index).for_each(|_| resilience.of(&name("cart")).count(event));
        }
        let shown = || {
            let page = metrics.encode().unwrap();
            let lines = page.lines().filter(|line| line.contains("shop/"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut expected: Vec<String> = [
            r#"ejections_total{service="shop/cart",cause="consecutive_errors"} 1"#,
            r#"ejections_total{service="shop/cart",cause="success_rate"} 2"#,
            r#"overflow_total{service="shop/cart",limit="maxConnections"} 3"#,
            r#"overflow_total{service="shop/cart",limit="maxPendingRequests"} 4"#,
            r#"overflow_total{service="shop/cart",limit="maxRequests"} 5"#,
            r#"retries_total{service="shop/cart",result="success"} 6"#,
            r#"retries_total{service="shop/cart",result="failure"} 7"#,
            r#"retries_total{service="shop/cart",result="budget_spent"} 8"#,
            r#"rate_limited_total{service="shop/cart"} 9"#,
            r#"faults_total{service="shop/cart",kind="delay"} 10"#,
            r#"faults_total{service="shop/cart",kind="abort"} 11"#,
        ]
        .map(|line| format!("ambit_waypoint_{line}"))
        .into();
        let mut lines = shown();
        lines.sort();
        expected.sort();
        assert_eq!(lines, expected);
        resilience.forget(&name("cart"));
        assert_eq!(shown(), Vec::<String>::new());
    }
}
