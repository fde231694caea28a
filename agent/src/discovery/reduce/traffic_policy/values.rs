//! The parts of a TrafficPolicy, with their bounds and defaults.

mod fault;
mod hash;

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;

pub(super) use self::fault::RawFault;
use self::hash::RawConsistentHash;
use crate::discovery::{
    model::{
        CircuitLimits, ConnectionPool, LoadBalancing, OutlierEjection, RateLimit, RateLimitBy,
        RetryBudgetPolicy, Strategy, SuccessRate, ZonePreference,
    },
    reduce::{FieldError, route::values::duration},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const TENTH: Duration = Duration::from_millis(100);
/// Of whatever is counted: as much as one process may hold.
const MILLION: i64 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLoadBalancing {
    #[serde(rename = "type", default)]
    strategy: RawStrategy,
    consistent_hash: Option<RawConsistentHash>,
    zone: Option<RawZone>,
    slow_start: Option<RawSlowStart>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum RawStrategy {
    #[default]
    LeastRequest,
    RoundRobin,
    ConsistentHash,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawZone {
    Prefer,
    Any,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSlowStart {
    window: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawCircuitBreaker {
    max_connections: Option<i64>,
    max_pending_requests: Option<i64>,
    max_requests: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawOutlierEjection {
    consecutive_errors: Option<i64>,
    interval: Option<String>,
    base_ejection: Option<String>,
    max_ejected_percent: Option<i64>,
    success_rate: Option<RawSuccessRate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSuccessRate {
    minimum_hosts: Option<i64>,
    request_volume: Option<i64>,
    deviation: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRetryBudget {
    percent: Option<i64>,
    min_per_second: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRateLimit {
    requests: i64,
    per: Option<String>,
    burst: Option<i64>,
    #[serde(default)]
    by: RawBy,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum RawBy {
    #[default]
    Target,
    ClientIdentity,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawConnectionPool {
    max_requests_per_connection: Option<i64>,
    idle_timeout: Option<String>,
    max_streams_per_connection: Option<i64>,
}

impl RawLoadBalancing {
    pub(super) fn check(&self) -> Result<LoadBalancing, FieldError> {
        const HASH: &str = "spec.loadBalancing.consistentHash";
        let strategy = match (self.strategy, &self.consistent_hash) {
            (RawStrategy::ConsistentHash, Some(hash)) => {
                Strategy::ConsistentHash(hash.check(HASH)?)
            }
            (RawStrategy::ConsistentHash, None) => {
                let reason = "is missing: say what is hashed, a header, a cookie or sourceAddress";
                return Err(FieldError::new(HASH, reason));
            }
            (_, Some(_)) => {
                let reason = "has no effect: set loadBalancing.type to \"ConsistentHash\"";
                return Err(FieldError::new(HASH, reason));
            }
            (RawStrategy::LeastRequest, None) => Strategy::LeastRequest,
            (RawStrategy::RoundRobin, None) => Strategy::RoundRobin,
        };
        let slow_start = self.slow_start.as_ref();
        if slow_start.is_some() && self.strategy == RawStrategy::ConsistentHash {
            let reason = "isn't possible with a consistent hash, which has each key stay with its \
                          endpoint: leave it out";
            return Err(FieldError::new("spec.loadBalancing.slowStart", reason));
        }
        let window = |raw: &RawSlowStart| {
            let field = "spec.loadBalancing.slowStart.window";
            time(field, Some(&raw.window), SECOND, SECOND..=HOUR)
        };
        Ok(LoadBalancing {
            strategy,
            zone: self.zone.map(|zone| match zone {
                RawZone::Prefer => ZonePreference::Prefer,
                RawZone::Any => ZonePreference::Any,
            }),
            slow_start: slow_start.map(window).transpose()?,
        })
    }
}

impl RawCircuitBreaker {
    pub(super) fn check(&self) -> Result<CircuitLimits, FieldError> {
        let limit = |name: &str, found, default| {
            let field = format!("spec.circuitBreaker.{name}");
            number(&field, found, default, 1..=MILLION)
        };
        let default = CircuitLimits::default();
        Ok(CircuitLimits {
            max_connections: limit(
                "maxConnections",
                self.max_connections,
                default.max_connections,
            )?,
            max_pending_requests: limit(
                "maxPendingRequests",
                self.max_pending_requests,
                default.max_pending_requests,
            )?,
            max_requests: limit("maxRequests", self.max_requests, default.max_requests)?,
        })
    }
}

impl RawOutlierEjection {
    pub(super) fn check(&self) -> Result<OutlierEjection, FieldError> {
        let field = |name: &str| format!("spec.outlierEjection.{name}");
        let consecutive = field("consecutiveErrors");
        let errors = number(&consecutive, self.consecutive_errors, 5, 0..=1_000)?;
        if errors == 0 && self.success_rate.is_none() {
            let reason = "is 0, so that no endpoint would ever be ejected: say how many errors do \
                          it, or compare by successRate";
            return Err(FieldError::new(consecutive, reason));
        }
        let (interval, base) = (self.interval.as_deref(), self.base_ejection.as_deref());
        let rate = self.success_rate.as_ref();
        Ok(OutlierEjection {
            consecutive_errors: (errors > 0).then_some(errors),
            interval: time(&field("interval"), interval, SECOND * 10, TENTH..=HOUR)?,
            base_ejection: time(&field("baseEjection"), base, SECOND * 30, TENTH..=DAY)?,
            max_ejected_percent: number(
                &field("maxEjectedPercent"),
                self.max_ejected_percent,
                50,
                1..=100,
            )?,
            success_rate: rate.map(RawSuccessRate::check).transpose()?,
        })
    }
}

impl RawSuccessRate {
    fn check(&self) -> Result<SuccessRate, FieldError> {
        let field = |name: &str| format!("spec.outlierEjection.successRate.{name}");
        let deviation = self.deviation.unwrap_or(1.9);
        if !(0.1..=10.0).contains(&deviation) {
            let expected = "a number of standard deviations from 0.1 to 10";
            return Err(FieldError::unexpected(
                field("deviation"),
                deviation,
                expected,
            ));
        }
        // At most 10,000, so that nothing is cut off.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0.1 to 10"
        )]
        let deviation_thousandths = (deviation * 1_000.0).round() as u32;
        Ok(SuccessRate {
            minimum_hosts: number(&field("minimumHosts"), self.minimum_hosts, 5, 2..=1_000)?,
            request_volume: number(
                &field("requestVolume"),
                self.request_volume,
                100,
                1..=MILLION,
            )?,
            deviation_thousandths,
        })
    }
}

impl RawRetryBudget {
    pub(super) fn check(&self) -> Result<RetryBudgetPolicy, FieldError> {
        let default = RetryBudgetPolicy::default();
        Ok(RetryBudgetPolicy {
            percent: number(
                "spec.retryBudget.percent",
                self.percent,
                default.percent,
                0..=100,
            )?,
            min_per_second: number(
                "spec.retryBudget.minPerSecond",
                self.min_per_second,
                default.min_per_second,
                0..=100_000,
            )?,
        })
    }
}

impl RawRateLimit {
    pub(super) fn check(&self) -> Result<RateLimit, FieldError> {
        let requests = number(
            "spec.rateLimit.requests",
            Some(self.requests),
            1,
            1..=MILLION,
        )?;
        Ok(RateLimit {
            requests,
            per: time(
                "spec.rateLimit.per",
                self.per.as_deref(),
                SECOND,
                TENTH..=DAY,
            )?,
            burst: number("spec.rateLimit.burst", self.burst, requests, 1..=MILLION)?,
            by: match self.by {
                RawBy::Target => RateLimitBy::Target,
                RawBy::ClientIdentity => RateLimitBy::ClientIdentity,
            },
        })
    }
}

impl RawConnectionPool {
    pub(super) fn check(&self) -> Result<ConnectionPool, FieldError> {
        let field = |name: &str| format!("spec.connectionPool.{name}");
        let default = ConnectionPool::default();
        let most = self.max_requests_per_connection;
        let requests = number(&field("maxRequestsPerConnection"), most, 1, 1..=MILLION)?;
        Ok(ConnectionPool {
            max_requests_per_connection: most.map(|_| requests),
            idle_timeout: time(
                &field("idleTimeout"),
                self.idle_timeout.as_deref(),
                default.idle_timeout,
                SECOND..=DAY,
            )?,
            max_streams_per_connection: number(
                &field("maxStreamsPerConnection"),
                self.max_streams_per_connection,
                default.max_streams_per_connection,
                1..=1_000,
            )?,
        })
    }
}

/// A number within bounds, which are none below 0.
fn number(
    field: &str,
    found: Option<i64>,
    default: u32,
    bounds: RangeInclusive<i64>,
) -> Result<u32, FieldError> {
    let Some(found) = found else {
        return Ok(default);
    };
    let number = u32::try_from(found)
        .ok()
        .filter(|_| bounds.contains(&found));
    number.ok_or_else(|| {
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        FieldError::unexpected(field, found, &expected)
    })
}

/// A duration within bounds.
fn time(
    field: &str,
    found: Option<&str>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, FieldError> {
    let Some(found) = found else {
        return Ok(default);
    };
    let duration = duration(field.to_owned(), found)?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let expected = format!("a duration from {:?} to {:?}", bounds.start(), bounds.end());
    Err(FieldError::unexpected(field, found, &expected))
}
