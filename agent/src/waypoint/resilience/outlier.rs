//! Which endpoints are left out for a while, because they fail more than others.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::discovery::model::{OutlierEjection, SuccessRate};

/// What is remembered of the endpoints of a backend. One that only succeeds takes no memory, unless success
/// rates are compared.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    records: HashMap<SocketAddr, Record>,
    /// How many endpoints there are, those without a record among them.
    endpoints: usize,
    /// When success rates are compared next.
    next_interval: Option<Instant>,
    /// No ejection lasts longer.
    last_end: Option<Instant>,
}

#[derive(Debug, Default)]
struct Record {
    /// Errors in a row.
    errors: u32,
    /// Of this interval.
    successes: u32,
    requests: u32,
    /// How many times it was ejected, less those that it was forgiven.
    ejections: u32,
    ejected_until: Option<Instant>,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionCause {
    /// So many errors in a row.
    ConsecutiveErrors,
    /// It fails more often than the others do.
    SuccessRate,
}

impl EjectionCause {
    /// For metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::SuccessRate => "success_rate",
        }
    }
}

/// An endpoint that is left out from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Which one.
    pub endpoint: SocketAddr,
    /// Why.
    pub cause: EjectionCause,
    /// For how long.
    pub duration: Duration,
}

impl Record {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }
}

impl Outliers {
    /// Whether any endpoint is ejected.
    pub(super) fn has_ejected(&self, now: Instant) -> bool {
        self.last_end.is_some_and(|end| now < end)
    }

    /// Whether this one is.
    pub(super) fn is_ejected(&self, endpoint: SocketAddr, now: Instant) -> bool {
        let record = self.records.get(&endpoint);
        record.is_some_and(|record| record.is_ejected(now))
    }

    /// Since when an endpoint is back that was ejected.
    pub(super) fn back_since(&self, endpoint: SocketAddr) -> Option<Instant> {
        self.records.get(&endpoint)?.ejected_until
    }

    /// How many are ejected.
    pub(super) fn ejected(&self, now: Instant) -> usize {
        let records = self.records.values();
        records.filter(|record| record.is_ejected(now)).count()
    }

    /// Says how many endpoints there are: shares are of these.
    pub(super) fn set_endpoints(&mut self, endpoints: usize) {
        self.endpoints = endpoints;
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, stays: impl Fn(SocketAddr) -> bool) {
        self.records.retain(|endpoint, _| stays(*endpoint));
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self {
            endpoints: self.endpoints,
            ..Self::default()
        };
    }

    /// A request has ended. Answers who is ejected by that.
    pub(super) fn finished(
        &mut self,
        policy: &OutlierEjection,
        endpoint: SocketAddr,
        is_success: bool,
        now: Instant,
    ) -> Vec<Ejection> {
        let mut ejections = self.end_interval(policy, now);
        if is_success && policy.success_rate.is_none() && !self.records.contains_key(&endpoint) {
            return ejections;
        }
        let record = self.records.entry(endpoint).or_default();
        record.requests = record.requests.saturating_add(1);
        if is_success {
            record.successes = record.successes.saturating_add(1);
            record.errors = 0;
            return ejections;
        }
        record.errors = record.errors.saturating_add(1);
        let errors = record.errors;
        if policy.consecutive_errors.is_some_and(|most| errors >= most) {
            let cause = EjectionCause::ConsecutiveErrors;
            ejections.extend(self.eject(policy, endpoint, cause, now));
        }
        ejections
    }

    /// Leaves an endpoint out, if not too many are already.
    fn eject(
        &mut self,
        policy: &OutlierEjection,
        endpoint: SocketAddr,
        cause: EjectionCause,
        now: Instant,
    ) -> Option<Ejection> {
        let most = self.endpoints * policy.max_ejected_percent as usize / 100;
        let ejected = self.ejected(now);
        let record = self.records.get_mut(&endpoint)?;
        if record.is_ejected(now) || (ejected > 0 && ejected >= most) {
            return None;
        }
        record.errors = 0;
        record.ejections = record.ejections.saturating_add(1);
        let longest = OutlierEjection::LONGEST.max(policy.base_ejection);
        let duration = policy.base_ejection.saturating_mul(record.ejections);
        let duration = duration.min(longest);
        let until = now + duration;
        record.ejected_until = Some(until);
        self.last_end = self.last_end.max(Some(until));
        Some(Ejection {
            endpoint,
            cause,
            duration,
        })
    }

    /// Compares success rates once an interval is over, and forgives.
    fn end_interval(&mut self, policy: &OutlierEjection, now: Instant) -> Vec<Ejection> {
        let next = *self.next_interval.get_or_insert(now + policy.interval);
        if now < next {
            return Vec::new();
        }
        self.next_interval = Some(now + policy.interval);
        let rate = policy.success_rate.as_ref();
        let outliers = rate.map_or_else(Vec::new, |rate| self.below(rate, now));
        for record in self.records.values_mut() {
            let had_errors = record.successes < record.requests;
            if !record.is_ejected(now) && !had_errors {
                record.ejections = record.ejections.saturating_sub(1);
            }
            (record.successes, record.requests) = (0, 0);
        }
        let ejections = outliers
            .into_iter()
            .filter_map(|endpoint| self.eject(policy, endpoint, EjectionCause::SuccessRate, now));
        let ejections = ejections.collect();
        // Nothing to remember: as if they had always succeeded.
        self.records.retain(|_, record| {
            record.errors > 0 || record.ejections > 0 || record.is_ejected(now)
        });
        ejections
    }

    /// The endpoints whose success rate is too far below the others', the worst first.
    fn below(&self, policy: &SuccessRate, now: Instant) -> Vec<SocketAddr> {
        let records = self.records.iter();
        let rates: Vec<(SocketAddr, f64)> = records
            .filter(|(_, record)| record.requests >= policy.request_volume.max(1))
            .filter(|(_, record)| !record.is_ejected(now))
            .map(|(endpoint, record)| {
                let rate = f64::from(record.successes) / f64::from(record.requests);
                (*endpoint, rate)
            })
            .collect();
        if rates.len() < policy.minimum_hosts as usize {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates
            .iter()
            .map(|(_, rate)| (rate - mean).powi(2))
            .sum::<f64>()
            / count;
        let deviations = f64::from(policy.deviation_thousandths) / 1_000.0;
        let least = mean - deviations * variance.sqrt();
        let mut outliers: Vec<_> = rates
            .into_iter()
            .filter(|(_, rate)| *rate < least)
            .collect();
        outliers.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        outliers.into_iter().map(|(endpoint, _)| endpoint).collect()
    }
}

#[cfg(test)]
mod tests;
