//! One port of a service: what is under way to it, and how its endpoints do.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use arc_swap::ArcSwap;
use http::HeaderMap;

use super::{
    balancer::Draw,
    circuit_breaker::{Admitted, CircuitBreaker, ConnectionPlace, Overload, Pending},
    endpoints::{Endpoints, InFlight},
    fault::{Fault, FaultKind, fault},
    lock,
    outlier::Ejection,
    retry_budget::RetryBudget,
};
use crate::{
    discovery::model::{
        BackendPolicy, Endpoint, ObjectName, TrafficDistribution, TrafficPolicy, ZonePreference,
    },
    telemetry::{ResilienceCounts, ResilienceEvent, RetryResult},
};

/// The state of a service's port.
#[derive(Debug)]
pub struct BackendState {
    service: ObjectName,
    policy: ArcSwap<BackendPolicy>,
    breaker: CircuitBreaker,
    endpoints: Mutex<Endpoints>,
    retries: Mutex<RetryBudget>,
    counts: Arc<ResilienceCounts>,
}

/// What there is to choose from, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Endpoints of the port.
    pub candidates: &'a [&'a Endpoint],
    /// The waypoint's own zone; `None` if it isn't known.
    pub zone: Option<&'a str>,
    /// What the Service says, which holds where the policy says nothing of zones.
    pub distribution: TrafficDistribution,
    /// What the request has to hash, for a consistent hash.
    pub hash: Option<u64>,
    /// Endpoints that this request was sent to before.
    pub tried: &'a [SocketAddr],
    /// The present.
    pub now: Instant,
    /// Any random number.
    pub random: u64,
}

/// What came of a request to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has answered, and not with an error of the server.
    Success,
    /// It answered with an error of the server (500 to 599, or such a gRPC status), late, or broke off.
    Error,
    /// It couldn't be reached.
    ConnectFailed,
}

/// An endpoint that a request goes to. The request counts as under way until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Chosen {
    /// Where it listens.
    pub address: SocketAddr,
    backend: Arc<BackendState>,
    _in_flight: InFlight,
}

/// A request that may be sent again.
#[derive(Debug)]
#[must_use]
pub struct RetryPlace {
    backend: Arc<BackendState>,
}

/// No request may be sent again now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the retry budget of the service is spent")]
pub struct BudgetSpent;

impl BackendState {
    pub(super) fn new(
        service: ObjectName,
        policy: Arc<BackendPolicy>,
        counts: Arc<ResilienceCounts>,
    ) -> Self {
        Self {
            service,
            policy: ArcSwap::new(policy),
            breaker: CircuitBreaker::default(),
            endpoints: Mutex::default(),
            retries: Mutex::default(),
            counts,
        }
    }

    /// The policy that is in force, for what is done elsewhere (connection pools).
    #[must_use]
    pub fn policy(&self) -> Arc<BackendPolicy> {
        self.policy.load_full()
    }

    /// Enters a request, which is no retry, until the guard is dropped.
    ///
    /// # Errors
    /// [`Overload`], if too many are under way.
    pub fn admit(&self, now: Instant) -> Result<Admitted, Overload> {
        let admitted = self.breaker.admit(&self.policy.load().circuit_breaker);
        let admitted = self.counted(admitted)?;
        lock(&self.retries).request(now);
        Ok(admitted)
    }

    /// Enters a request that waits for a connection, until the guard is dropped.
    ///
    /// # Errors
    /// [`Overload`], if too many wait.
    pub fn pending(&self) -> Result<Pending, Overload> {
        self.counted(self.breaker.pending(&self.policy.load().circuit_breaker))
    }

    /// Enters a connection to an endpoint, until the guard is dropped.
    ///
    /// # Errors
    /// [`Overload`], if too many are open.
    pub fn connection(&self) -> Result<ConnectionPlace, Overload> {
        let entered = self.breaker.connection(&self.policy.load().circuit_breaker);
        self.counted(entered)
    }

    /// Takes an endpoint for a request; `None` if there is no candidate.
    pub fn choose(self: &Arc<Self>, choice: &Choice<'_>) -> Option<Chosen> {
        let policy = self.policy.load();
        let balancing = &policy.load_balancing;
        let prefers_zone = match balancing.zone {
            Some(preference) => preference == ZonePreference::Prefer,
            None => choice.distribution == TrafficDistribution::PreferSameZone,
        };
        let mut endpoints = lock(&self.endpoints);
        endpoints.turn = endpoints.turn.wrapping_add(1);
        endpoints.outliers.set_endpoints(choice.candidates.len());
        let draw = Draw {
            strategy: &balancing.strategy,
            candidates: choice.candidates,
            zone: choice.zone.filter(|_| prefers_zone),
            hash: choice.hash,
            tried: choice.tried,
            turn: endpoints.turn,
            random: choice.random,
        };
        let taken = draw.choose(&endpoints.standing(balancing.slow_start, choice.now))?;
        let address = taken.socket_address();
        let in_flight = endpoints.enter(address);
        Some(Chosen {
            address,
            backend: self.clone(),
            _in_flight: in_flight,
        })
    }

    /// Takes a retry from the budget.
    ///
    /// # Errors
    /// [`BudgetSpent`], if there is none left.
    pub fn may_retry(self: &Arc<Self>, now: Instant) -> Result<RetryPlace, BudgetSpent> {
        let budget = self.policy.load().retry_budget;
        if lock(&self.retries).retry(&budget, now) {
            return Ok(RetryPlace {
                backend: self.clone(),
            });
        }
        self.counts
            .count(ResilienceEvent::Retried(RetryResult::BudgetSpent));
        Err(BudgetSpent)
    }

    /// The fault that is to be put into a request with these headers, and counts it. `random` is any random
    /// number.
    #[must_use]
    pub fn fault(&self, policy: &TrafficPolicy, headers: &HeaderMap, random: u64) -> Fault {
        let policy = policy.fault.as_ref();
        let fault = policy.map_or_else(Fault::default, |it| fault(it, headers, random));
        if fault.delay.is_some() {
            self.counts.count(ResilienceEvent::Fault(FaultKind::Delay));
        }
        if fault.abort.is_some() {
            self.counts.count(ResilienceEvent::Fault(FaultKind::Abort));
        }
        fault
    }

    /// How many endpoints are left out.
    #[must_use]
    pub fn ejected(&self, now: Instant) -> usize {
        lock(&self.endpoints).outliers.ejected(now)
    }

    /// Goes by another policy from now on, if it is another.
    pub(super) fn obey(&self, policy: &Arc<BackendPolicy>) {
        let before = self.policy.load();
        if Arc::ptr_eq(&before, policy) {
            return;
        }
        if before.outlier_ejection.is_some() && policy.outlier_ejection.is_none() {
            lock(&self.endpoints).outliers.clear();
        }
        self.policy.store(policy.clone());
    }

    pub(super) fn endpoints_changed(
        &self,
        before: &BTreeSet<SocketAddr>,
        after: &BTreeSet<SocketAddr>,
        now: Instant,
    ) {
        lock(&self.endpoints).change(before, after, now);
    }

    fn counted<T>(&self, entered: Result<T, Overload>) -> Result<T, Overload> {
        let event = |overload: &Overload| ResilienceEvent::Overflowed(overload.limit);
        entered.inspect_err(|overload| self.counts.count(event(overload)))
    }

    fn finished(&self, endpoint: SocketAddr, verdict: Verdict, now: Instant) {
        let policy = self.policy.load();
        let Some(ejection) = &policy.outlier_ejection else {
            return;
        };
        let is_success = verdict == Verdict::Success;
        let mut endpoints = lock(&self.endpoints);
        let ejected = endpoints
            .outliers
            .finished(ejection, endpoint, is_success, now);
        drop(endpoints);
        for ejection in ejected {
            self.tell(&ejection);
        }
    }

    fn tell(&self, ejection: &Ejection) {
        self.counts.count(ResilienceEvent::Ejected(ejection.cause));
        tracing::warn!(
            service = %self.service,
            endpoint = %ejection.endpoint,
            cause = ejection.cause.as_str(),
            "endpoint left out for {:?}",
            ejection.duration
        );
    }
}

impl Chosen {
    /// Says what came of the request.
    pub fn finished(self, verdict: Verdict, now: Instant) {
        self.backend.finished(self.address, verdict, now);
    }
}

impl RetryPlace {
    /// Says whether the retry brought an answer that needs no further one.
    pub fn finished(self, is_success: bool) {
        let result = if is_success {
            RetryResult::Success
        } else {
            RetryResult::Failure
        };
        self.backend.counts.count(ResilienceEvent::Retried(result));
    }
}

#[cfg(test)]
mod tests;
