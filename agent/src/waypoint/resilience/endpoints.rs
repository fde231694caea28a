//! What a backend remembers of its endpoints.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    balancer::{FULL, Standing},
    outlier::Outliers,
};
use crate::discovery::model::Service;

/// The share that a new endpoint has at first.
const FIRST_SHARE: u32 = FULL / 10;

/// Endpoints that were taken, or came after the first request. Those that leave are forgotten.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    known: HashMap<SocketAddr, Known>,
    pub(super) outliers: Outliers,
    /// Requests so far.
    pub(super) turn: usize,
}

#[derive(Debug, Default)]
struct Known {
    in_flight: Arc<AtomicU32>,
    /// When it came; `None` if it was there before the first request.
    since: Option<Instant>,
}

/// Counts a request to an endpoint until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicU32>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The addresses of the endpoints of a service's port; none if there is no service.
pub(super) fn addresses(service: Option<&Service>, port: u16) -> BTreeSet<SocketAddr> {
    let candidates = service.map(|service| service.of_port(port));
    let candidates = candidates.into_iter().flatten();
    candidates
        .map(|endpoint| endpoint.socket_address())
        .collect()
}

impl Endpoints {
    /// Counts a request to an endpoint.
    pub(super) fn enter(&mut self, endpoint: SocketAddr) -> InFlight {
        let known = self.known.entry(endpoint).or_default();
        known.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(known.in_flight.clone())
    }

    /// Takes note of those that came, and forgets those that aren't there.
    pub(super) fn change(
        &mut self,
        before: &BTreeSet<SocketAddr>,
        after: &BTreeSet<SocketAddr>,
        now: Instant,
    ) {
        self.known.retain(|endpoint, _| after.contains(endpoint));
        self.outliers.retain(|endpoint| after.contains(&endpoint));
        for endpoint in after.difference(before) {
            self.known.entry(*endpoint).or_default().since = Some(now);
        }
    }

    /// How they stand at one moment.
    pub(super) fn standing(&self, slow_start: Option<Duration>, now: Instant) -> Now<'_> {
        Now {
            endpoints: self,
            slow_start,
            now,
        }
    }
}

/// How endpoints stand at one moment.
pub(super) struct Now<'a> {
    endpoints: &'a Endpoints,
    slow_start: Option<Duration>,
    now: Instant,
}

impl Standing for Now<'_> {
    fn has_ejected(&self) -> bool {
        self.endpoints.outliers.has_ejected(self.now)
    }

    fn is_ejected(&self, endpoint: SocketAddr) -> bool {
        self.endpoints.outliers.is_ejected(endpoint, self.now)
    }

    fn in_flight(&self, endpoint: SocketAddr) -> u32 {
        let known = self.endpoints.known.get(&endpoint);
        known.map_or(0, |known| known.in_flight.load(Ordering::Relaxed))
    }

    fn starts_slowly(&self) -> bool {
        self.slow_start.is_some()
    }

    fn share(&self, endpoint: SocketAddr) -> u32 {
        let came = self.endpoints.known.get(&endpoint);
        let came = came.and_then(|known| known.since);
        let since = came.max(self.endpoints.outliers.back_since(endpoint));
        let (Some(window), Some(since)) = (self.slow_start, since) else {
            return FULL;
        };
        share(now_since(self.now, since), window)
    }
}

fn now_since(now: Instant, since: Instant) -> Duration {
    now.saturating_duration_since(since)
}

/// Grows evenly from [`FIRST_SHARE`] to [`FULL`] while the window passes.
fn share(passed: Duration, window: Duration) -> u32 {
    if passed >= window {
        return FULL;
    }
    let grown = u128::from(FULL - FIRST_SHARE) * passed.as_nanos() / window.as_nanos();
    FIRST_SHARE + u32::try_from(grown).unwrap_or(FULL - FIRST_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly_over_the_window() {
        let seconds = Duration::from_secs;
        for (passed, expected) in [(0, 100), (10, 400), (15, 550), (30, 1_000), (31, 1_000)] {
            assert_eq!(share(seconds(passed), seconds(30)), expected, "{passed} s");
        }
    }

    #[test]
    fn who_was_there_at_first_has_a_full_share_and_who_comes_later_has_not() {
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        let start = Instant::now();
        let mut endpoints = Endpoints::default();
        let _request = endpoints.enter(at(1));
        endpoints.change(&[at(1)].into(), &[at(1), at(2)].into(), start);
        let share = |endpoints: &Endpoints, last, second| {
            let window = Some(Duration::from_secs(30));
            let now = start + Duration::from_secs(second);
            endpoints.standing(window, now).share(at(last))
        };
        assert_eq!(share(&endpoints, 1, 0), FULL);
        assert_eq!(share(&endpoints, 2, 15), 550);
        // One that leaves and comes back is new again, and its requests of before don't count.
        endpoints.change(&[at(1), at(2)].into(), &[at(2)].into(), start);
        assert_eq!(endpoints.known.len(), 1);
        let later = start + Duration::from_secs(60);
        endpoints.change(&[at(2)].into(), &[at(1), at(2)].into(), later);
        assert_eq!(share(&endpoints, 1, 60), FIRST_SHARE);
        assert_eq!(endpoints.standing(None, later).in_flight(at(1)), 0);
    }
}
