//! Which endpoint gets a request.
//!
//! Endpoints that can't be used well are left out, as long as others are there: first those of other zones where
//! the own one goes first, then those that were tried or are ejected. A request is never refused for lack of good
//! endpoints: all that are bad are as good as each other.

use std::net::SocketAddr;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use twox_hash::XxHash3_64;

use crate::discovery::model::{Endpoint, Strategy};

/// Draws after which an endpoint that starts slowly is taken all the same: with one of two such endpoints at a
/// tenth of its share, it gets 11 % of the requests, where endless draws would give it 9.
const DRAWS: usize = 4;
/// A full share.
pub(super) const FULL: u32 = 1_000;

/// What is known of endpoints beyond what they are.
pub(super) trait Standing {
    /// Whether any is ejected.
    fn has_ejected(&self) -> bool;
    /// Whether this one is.
    fn is_ejected(&self, endpoint: SocketAddr) -> bool;
    /// Requests under way to it.
    fn in_flight(&self, endpoint: SocketAddr) -> u32;
    /// Whether new endpoints start slowly.
    fn starts_slowly(&self) -> bool;
    /// Which share of requests it is to have by now, of [`FULL`].
    fn share(&self, endpoint: SocketAddr) -> u32;
}

/// Among whom, and how, to choose.
#[derive(Debug)]
pub(super) struct Draw<'a> {
    pub(super) strategy: &'a Strategy,
    pub(super) candidates: &'a [&'a Endpoint],
    /// The zone that goes first.
    pub(super) zone: Option<&'a str>,
    pub(super) hash: Option<u64>,
    pub(super) tried: &'a [SocketAddr],
    /// Counts the requests, for those who take turns.
    pub(super) turn: usize,
    pub(super) random: u64,
}

/// Which candidates come into question.
#[derive(Debug, Clone, Copy)]
struct Level {
    of_zone: bool,
    not_ejected: bool,
    not_tried: bool,
}

/// The first that leaves anybody is taken.
const LEVELS: [Level; 5] = [
    Level::new(true, true, true),
    Level::new(false, true, true),
    Level::new(false, true, false),
    Level::new(false, false, true),
    Level::new(false, false, false),
];

impl Level {
    const fn new(of_zone: bool, not_ejected: bool, not_tried: bool) -> Self {
        Self {
            of_zone,
            not_ejected,
            not_tried,
        }
    }
}

impl<'a> Draw<'a> {
    /// The endpoint to take; `None` only if there is no candidate.
    pub(super) fn choose(&self, standing: &impl Standing) -> Option<&'a Endpoint> {
        let (level, count) = self.level(standing)?;
        if count == 1 {
            return self.nth(level, standing, 0);
        }
        let mut random = SmallRng::seed_from_u64(self.random);
        match (self.strategy, self.hash) {
            (Strategy::ConsistentHash(_), Some(key)) => {
                self.of_highest_weight(level, standing, key)
            }
            (Strategy::RoundRobin, _) => self.nth_ready(level, standing, &mut random, |draw, _| {
                self.turn.wrapping_add(draw) % count
            }),
            (Strategy::LeastRequest | Strategy::ConsistentHash(_), _) => {
                self.of_two(level, standing, &mut random, count)
            }
        }
    }

    /// The best level with anybody in it, and with how many; `None` stands for all candidates.
    fn level(&self, standing: &impl Standing) -> Option<(Option<Level>, usize)> {
        let all = self.candidates.len();
        if all == 0 {
            return None;
        }
        if self.zone.is_none() && self.tried.is_empty() && !standing.has_ejected() {
            return Some((None, all));
        }
        LEVELS.iter().find_map(|level| {
            let count = self.usable(*level, standing).count();
            (count > 0).then_some((Some(*level), count))
        })
    }

    fn usable(&self, level: Level, standing: &impl Standing) -> impl Iterator<Item = &'a Endpoint> {
        let has_ejected = level.not_ejected && standing.has_ejected();
        let zone = self.zone.filter(|_| level.of_zone);
        let tried = if level.not_tried { self.tried } else { &[] };
        self.candidates.iter().copied().filter(move |endpoint| {
            let address = endpoint.socket_address();
            zone.is_none_or(|zone| endpoint.zone.as_deref() == Some(zone))
                && !tried.contains(&address)
                && !(has_ejected && standing.is_ejected(address))
        })
    }

    fn nth(
        &self,
        level: Option<Level>,
        standing: &impl Standing,
        index: usize,
    ) -> Option<&'a Endpoint> {
        match level {
            None => self.candidates.get(index).copied(),
            Some(level) => self.usable(level, standing).nth(index),
        }
    }

    /// The endpoint at the first index that `index` names whose turn it is, as far as its share goes.
    fn nth_ready(
        &self,
        level: Option<Level>,
        standing: &impl Standing,
        random: &mut SmallRng,
        mut index: impl FnMut(usize, &mut SmallRng) -> usize,
    ) -> Option<&'a Endpoint> {
        for draw in 0..DRAWS {
            let endpoint = self.nth(level, standing, index(draw, random))?;
            if !standing.starts_slowly()
                || random.random_range(0..FULL) < standing.share(endpoint.socket_address())
            {
                return Some(endpoint);
            }
        }
        self.nth(level, standing, index(DRAWS, random))
    }

    /// Of two taken at random, the less busy one.
    fn of_two(
        &self,
        level: Option<Level>,
        standing: &impl Standing,
        random: &mut SmallRng,
        count: usize,
    ) -> Option<&'a Endpoint> {
        let mut taken = 0;
        let first = self.nth_ready(level, standing, random, |_, random| {
            taken = random.random_range(0..count);
            taken
        })?;
        // Another one than the first, each as likely.
        let second = self.nth_ready(level, standing, random, |_, random| {
            (taken + random.random_range(1..count)) % count
        })?;
        let busy = |endpoint: &Endpoint| standing.in_flight(endpoint.socket_address());
        Some(if busy(second) < busy(first) {
            second
        } else {
            first
        })
    }

    /// Rendezvous hashing: each key ranks all endpoints, and the first that can be used gets it. When one leaves,
    /// its keys alone move, and evenly to all others; those that are ejected or tried are passed over the same way.
    fn of_highest_weight(
        &self,
        level: Option<Level>,
        standing: &impl Standing,
        key: u64,
    ) -> Option<&'a Endpoint> {
        let weight = |endpoint: &&Endpoint| weight(key, endpoint.socket_address());
        match level {
            None => self.candidates.iter().copied().max_by_key(weight),
            Some(level) => self.usable(level, standing).max_by_key(weight),
        }
    }
}

/// The same on every waypoint, whatever its version and machine.
fn weight(key: u64, endpoint: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    match endpoint {
        SocketAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => bytes[..16].copy_from_slice(&v6.ip().octets()),
    }
    bytes[16..].copy_from_slice(&endpoint.port().to_be_bytes());
    XxHash3_64::oneshot_with_seed(key, &bytes)
}

#[cfg(test)]
mod tests;
