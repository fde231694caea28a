//! How much may be under way from this waypoint to one port of a service.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::discovery::model::CircuitLimits;

/// Counts what is under way.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    connections: Arc<AtomicU32>,
    pending: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitLimit {
    /// `maxConnections`.
    Connections,
    /// `maxPendingRequests`.
    Pending,
    /// `maxRequests`.
    Requests,
}

impl CircuitLimit {
    /// As the field of a TrafficPolicy is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending => "maxPendingRequests",
            Self::Requests => "maxRequests",
        }
    }
}

/// A limit of a circuit breaker is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{most} are under way already: the service is too slow for its load, or circuitBreaker.{} of its \
     TrafficPolicy too small",
    .limit.as_str()
)]
pub struct Overload {
    /// Which one.
    pub limit: CircuitLimit,
    /// How many may be under way.
    pub most: u32,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Admitted(#[expect(dead_code, reason = "held for its drop")] Place);

/// A request that waits for a connection until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Pending(#[expect(dead_code, reason = "held for its drop")] Place);

/// A connection that is open, or about to be, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct ConnectionPlace(#[expect(dead_code, reason = "held for its drop")] Place);

impl CircuitBreaker {
    pub(super) fn admit(&self, limits: &CircuitLimits) -> Result<Admitted, Overload> {
        enter(&self.requests, CircuitLimit::Requests, limits.max_requests).map(Admitted)
    }

    pub(super) fn pending(&self, limits: &CircuitLimits) -> Result<Pending, Overload> {
        let most = limits.max_pending_requests;
        enter(&self.pending, CircuitLimit::Pending, most).map(Pending)
    }

    pub(super) fn connection(&self, limits: &CircuitLimits) -> Result<ConnectionPlace, Overload> {
        let most = limits.max_connections;
        enter(&self.connections, CircuitLimit::Connections, most).map(ConnectionPlace)
    }
}

#[derive(Debug)]
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn enter(count: &Arc<AtomicU32>, limit: CircuitLimit, most: u32) -> Result<Place, Overload> {
    let below = |under_way: u32| (under_way < most).then_some(under_way + 1);
    match count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below) {
        Ok(_) => Ok(Place(count.clone())),
        Err(_) => Err(Overload { limit, most }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CircuitLimits = CircuitLimits {
        max_connections: 1,
        max_pending_requests: 2,
        max_requests: 3,
    };

    #[test]
    fn each_limit_holds_until_a_place_is_given_back() {
        fn check<P>(
            limit: CircuitLimit,
            most: u32,
            enter: impl Fn(&CircuitBreaker, &CircuitLimits) -> Result<P, Overload>,
        ) {
            let breaker = CircuitBreaker::default();
            let mut places: Vec<P> = (0..most)
                .map(|_| enter(&breaker, &LIMITS).unwrap())
                .collect();
            let refused = enter(&breaker, &LIMITS).err();
            assert_eq!(refused, Some(Overload { limit, most }));
            drop(places.pop());
            places.push(enter(&breaker, &LIMITS).unwrap());
            assert!(enter(&breaker, &LIMITS).is_err(), "{limit:?}");
        }
        check(CircuitLimit::Connections, 1, CircuitBreaker::connection);
        check(CircuitLimit::Pending, 2, CircuitBreaker::pending);
        check(CircuitLimit::Requests, 3, CircuitBreaker::admit);
    }

    #[test]
    fn a_limit_that_was_lowered_holds_for_those_who_come_now() {
        let breaker = CircuitBreaker::default();
        let _under_way: Vec<Admitted> = (0..3).map(|_| breaker.admit(&LIMITS).unwrap()).collect();
        let lower = CircuitLimits {
            max_requests: 1,
            ..LIMITS
        };
        assert!(breaker.admit(&lower).is_err());
    }

    #[test]
    fn the_limits_are_apart() {
        let breaker = CircuitBreaker::default();
        let _connection = breaker.connection(&LIMITS).unwrap();
        assert!(breaker.connection(&LIMITS).is_err());
        assert!(breaker.pending(&LIMITS).is_ok());
        assert!(breaker.admit(&LIMITS).is_ok());
    }
}
