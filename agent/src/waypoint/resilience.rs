//! What keeps a service that fails from taking others along: who gets a request, how much may be under way, who
//! is left out, what may be sent again, who has to wait, and which faults are put in on purpose.
//!
//! [`Resilience`] knows a [`BackendState`] for each port of a service that was asked for. What decides is in the
//! modules below: they read no clock and draw no random number.

mod backend;
mod balancer;
mod circuit_breaker;
mod endpoints;
mod fault;
mod hash;
mod outlier;
mod rate_limit;
mod retry_budget;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use imbl::HashMap;

use self::rate_limit::RateLimits;
pub use self::{
    backend::{BackendState, BudgetSpent, Choice, Chosen, RetryPlace, Verdict},
    circuit_breaker::{Admitted, CircuitLimit, ConnectionPlace, Overload, Pending},
    fault::{Abort, Fault, FaultKind},
    hash::{Hash, hash_of},
    outlier::{Ejection, EjectionCause},
    rate_limit::{RateLimited, RateTarget},
};
use crate::{
    discovery::{
        model::{BackendPolicy, ObjectName, TrafficPolicy},
        store::{Snapshot, Update},
    },
    identity::Identity,
    telemetry::{ResilienceEvent, ResilienceMetrics},
};

/// The states of all backends of a waypoint. Those of services that are gone are forgotten.
#[derive(Debug)]
pub struct Resilience {
    /// Ports of a service; nearly always one or two.
    backends: ArcSwap<HashMap<ObjectName, Ports>>,
    defaults: Arc<BackendPolicy>,
    rate_limits: RateLimits,
    metrics: Arc<ResilienceMetrics>,
}

type Ports = Arc<[(u16, Arc<BackendState>)]>;

impl Resilience {
    /// Knows no backend yet.
    #[must_use]
    pub fn new(metrics: Arc<ResilienceMetrics>) -> Self {
        Self {
            backends: ArcSwap::default(),
            defaults: Arc::default(),
            rate_limits: RateLimits::default(),
            metrics,
        }
    }

    /// The state of a service's port, under the policy that is in force for it.
    #[must_use]
    pub fn backend(
        &self,
        service: &ObjectName,
        port: u16,
        policy: Option<&Arc<TrafficPolicy>>,
    ) -> Arc<BackendState> {
        let policy = policy.map_or(&self.defaults, |policy| &policy.backend);
        let known = find(&self.backends.load(), service, port);
        let state = known.unwrap_or_else(|| self.enter(service, port, policy));
        state.obey(policy);
        state
    }

    /// Takes a request from the rate limit of a target, which `policy` is for. `service` is the one that was asked
    /// for, in whose name a refusal is counted.
    ///
    /// # Errors
    /// [`RateLimited`], if it has to wait.
    pub fn within_rate(
        &self,
        target: RateTarget<'_>,
        policy: &TrafficPolicy,
        service: &ObjectName,
        client: Option<&Identity>,
        now: Instant,
    ) -> Result<(), RateLimited> {
        let admitted = self.rate_limits.admit(target, policy, client, now);
        admitted.inspect_err(|_| {
            self.metrics.of(service).count(ResilienceEvent::RateLimited);
        })
    }

    /// How many endpoints of each service are left out, if there is a policy that may leave out any.
    #[must_use]
    pub fn ejected(&self, now: Instant) -> Vec<(ObjectName, usize)> {
        let backends = self.backends.load();
        let ejecting = |ports: &Ports| {
            let mut states = ports.iter().map(|(_, state)| state);
            states.any(|state| state.policy().outlier_ejection.is_some())
        };
        let services = backends.iter().filter(|(_, ports)| ejecting(ports));
        let services = services.map(|(name, ports)| {
            let ejected = ports.iter().map(|(_, state)| state.ejected(now)).sum();
            (name.clone(), ejected)
        });
        services.collect()
    }

    /// Follows a change: endpoints that came start slowly where they are to, those that went are forgotten, and so
    /// are services.
    pub fn apply(&self, update: &Update, now: Instant) {
        for change in &update.services {
            let Some(name) = change.before.as_ref().or(change.after.as_ref()) else {
                continue;
            };
            let backends = self.backends.load();
            let Some(ports) = backends.get(&name.name) else {
                continue;
            };
            for (port, state) in ports.iter() {
                let of = |service: &Option<_>| endpoints::addresses(service.as_deref(), *port);
                state.endpoints_changed(&of(&change.before), &of(&change.after), now);
            }
        }
        self.forget_gone(&update.snapshot);
    }

    /// Follows whatever has changed, where it isn't known what.
    pub fn resync(&self, snapshot: &Snapshot, now: Instant) {
        for (name, ports) in self.backends.load().iter() {
            let service = snapshot.service(name);
            for (port, state) in ports.iter() {
                let there = endpoints::addresses(service.map(|it| &**it), *port);
                state.endpoints_changed(&there, &there, now);
            }
        }
        self.forget_gone(snapshot);
    }

    fn forget_gone(&self, snapshot: &Snapshot) {
        self.rate_limits.retain(|shared| {
            let (kind, name) = shared.target();
            let mut policies = snapshot.traffic_policies_of(kind, name);
            policies.any(|policy| policy.rate_limit.is_some())
        });
        let backends = self.backends.load();
        let is_gone = |name: &&ObjectName| snapshot.service(name).is_none();
        let gone: Vec<&ObjectName> = backends.keys().filter(is_gone).collect();
        if gone.is_empty() {
            return;
        }
        self.backends.rcu(|backends| {
            let mut backends = HashMap::clone(backends);
            backends.retain(|name, _| !gone.contains(&name));
            backends
        });
        for name in gone {
            self.metrics.forget(name);
        }
    }

    /// Enters a backend, unless another request was first.
    fn enter(
        &self,
        service: &ObjectName,
        port: u16,
        policy: &Arc<BackendPolicy>,
    ) -> Arc<BackendState> {
        let new = Arc::new(BackendState::new(
            service.clone(),
            policy.clone(),
            self.metrics.of(service),
        ));
        self.backends.rcu(|backends| {
            let mut backends = HashMap::clone(backends);
            if find(&backends, service, port).is_none() {
                let others = backends.get(service).into_iter().flat_map(|it| it.iter());
                let ports = others.cloned().chain([(port, new.clone())]).collect();
                backends.insert(service.clone(), ports);
            }
            backends
        });
        find(&self.backends.load(), service, port).unwrap_or(new)
    }
}

fn find(
    backends: &HashMap<ObjectName, Ports>,
    service: &ObjectName,
    port: u16,
) -> Option<Arc<BackendState>> {
    let mut ports = backends.get(service)?.iter();
    let (_, state) = ports.find(|(known, _)| *known == port)?;
    Some(state.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and records: whoever panicked left them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
