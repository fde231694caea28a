//! How many requests are passed on: for each target, or for each client's identity.
//!
//! Each waypoint counts for itself. A bucket is one moment: that at which it would be full again if nobody came,
//! so that it needs no refilling, and one that is full again needn't be kept.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::lock;
use crate::{
    discovery::model::{
        ObjectName, RateLimit, RateLimitBy, RouteKind, TrafficPolicy, TrafficPolicyTarget,
    },
    identity::Identity,
};

/// Identities that are told apart for one target; further ones share a bucket while so many ask.
const MAX_CLIENTS: usize = 10_000;
/// Buckets that are full again are looked for at most this often.
const SWEEP: Duration = Duration::from_secs(1);

/// What a request is for, as the one who asks knows it.
#[derive(Debug, Clone, Copy)]
pub enum RateTarget<'a> {
    /// A Service's port.
    Service {
        /// The Service.
        name: &'a ObjectName,
        /// The port.
        port: u16,
    },
    /// A rule of a route.
    Route {
        /// The route's kind.
        kind: RouteKind,
        /// The route.
        name: &'a ObjectName,
        /// The rule's name, if it has one.
        rule: Option<&'a Arc<str>>,
    },
}

/// A request came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: the next may come in {retry_after:?}")]
pub struct RateLimited {
    /// When one that comes then passes, if no other comes before.
    pub retry_after: Duration,
}

impl RateLimited {
    /// For `Retry-After`: whole seconds, rounded up.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0)
    }
}

/// Who shares a limit, as the policy names it: a policy for a whole Service has one for all of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shared {
    Service(ObjectName, Option<u16>),
    Route(RouteKind, ObjectName, Option<Arc<str>>),
}

/// The limits of all targets that were asked for.
#[derive(Debug, Default)]
pub(super) struct RateLimits(Mutex<HashMap<Shared, Limiter>>);

#[derive(Debug)]
struct Limiter {
    limit: RateLimit,
    /// Of all, or of the clients for whom there is no room.
    common: Bucket,
    clients: HashMap<Identity, Bucket>,
    swept: Option<Instant>,
}

/// When it would be full again; `None`: it is.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Option<Instant>);

impl RateLimits {
    /// Takes a request, if it may pass.
    pub(super) fn admit(
        &self,
        target: RateTarget<'_>,
        policy: &TrafficPolicy,
        client: Option<&Identity>,
        now: Instant,
    ) -> Result<(), RateLimited> {
        let Some(limit) = policy.rate_limit else {
            return Ok(());
        };
        let mut limiters = lock(&self.0);
        let limiter = match limiters.entry(Shared::of(target, policy)) {
            Entry::Occupied(entry) if entry.get().limit == limit => entry.into_mut(),
            Entry::Occupied(mut entry) => {
                entry.insert(Limiter::new(limit));
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(Limiter::new(limit)),
        };
        limiter.admit(client, now)
    }

    /// Forgets the others.
    pub(super) fn retain(&self, stays: impl Fn(&Shared) -> bool) {
        lock(&self.0).retain(|shared, _| stays(shared));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

impl Shared {
    /// The Service (without a kind) or route that it is for.
    pub(super) fn target(&self) -> (Option<RouteKind>, &ObjectName) {
        match self {
            Self::Service(name, _) => (None, name),
            Self::Route(kind, name, _) => (Some(*kind), name),
        }
    }

    fn of(target: RateTarget<'_>, policy: &TrafficPolicy) -> Self {
        match target {
            RateTarget::Service { name, port } => {
                let is_whole = policy.targets.iter().any(|target| {
                    matches!(target, TrafficPolicyTarget::Service { name: named, port: None }
                        if *named == name.name)
                });
                Self::Service(name.clone(), (!is_whole).then_some(port))
            }
            RateTarget::Route { kind, name, rule } => {
                let is_whole = policy.targets.iter().any(|target| {
                    matches!(target, TrafficPolicyTarget::Route { kind: of, name: named, rule: None }
                        if *of == kind && *named == name.name)
                });
                Self::Route(kind, name.clone(), rule.filter(|_| !is_whole).cloned())
            }
        }
    }
}

impl Limiter {
    fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            common: Bucket::default(),
            clients: HashMap::new(),
            swept: None,
        }
    }

    fn admit(&mut self, client: Option<&Identity>, now: Instant) -> Result<(), RateLimited> {
        let limit = self.limit;
        let bucket = match (limit.by, client) {
            (RateLimitBy::ClientIdentity, Some(client)) => self.bucket_of(client, now),
            _ => &mut self.common,
        };
        bucket.take(&limit, now)
    }

    fn bucket_of(&mut self, client: &Identity, now: Instant) -> &mut Bucket {
        if !self.clients.contains_key(client) {
            let is_due = self.swept.is_none_or(|swept| now >= swept + SWEEP);
            if self.clients.len() >= MAX_CLIENTS && is_due {
                self.clients.retain(|_, bucket| !bucket.is_full(now));
                self.swept = Some(now);
            }
            if self.clients.len() >= MAX_CLIENTS {
                return &mut self.common;
            }
        }
        self.clients.entry(client.clone()).or_default()
    }
}

impl Bucket {
    /// Takes one, or says how long it is until there is one.
    fn take(&mut self, limit: &RateLimit, now: Instant) -> Result<(), RateLimited> {
        // Bounds of the fields keep it above 0, and sums far from where a clock would overflow.
        let each = limit.per / limit.requests;
        let full_at = self.0.map_or(now, |full_at| full_at.max(now)) + each;
        let (to_fill, most) = (full_at - now, each * limit.burst);
        if to_fill > most {
            return Err(RateLimited {
                retry_after: to_fill - most,
            });
        }
        self.0 = Some(full_at);
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests;
