//! A bounded number of clients, in which the newest always finds a place.
//!
//! Where all are taken, whoever has most of them gives one up: one that hasn't asked for anything yet before
//! one that has, and the oldest of those. So clients that only hold connections keep nobody out, and those
//! of one address no other. An address that has most places itself can't have them turn over so fast that none
//! of its clients has time to ask.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::telemetry::listeners;

/// How long a client has its place before a newer one of its address takes it, for what it asks may be on its
/// way.
const GRACE: Duration = Duration::from_millis(100);

/// Places for so many clients.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// The oldest first.
    clients: VecDeque<Client>,
}

#[derive(Debug)]
struct Client {
    id: u64,
    address: IpAddr,
    /// When somebody began to listen to it.
    since: Option<Instant>,
    has_asked: bool,
    gives_way: CancellationToken,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::default(),
        })
    }

    /// A place for a client, until it is dropped or lost to a newer one; none if it comes too soon after too many
    /// of its address. Those of this node, who have the same one, wait instead.
    pub(crate) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        loop {
            match self.try_take(address) {
                Ok(place) => return Some(place),
                Err(when) if address.is_loopback() => sleep_until(when).await,
                Err(_) => {
                    listeners::gave_way();
                    return None;
                }
            }
        }
    }

    /// A place, or when there will be one at the latest.
    fn try_take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Instant> {
        let (mut taken, now) = (self.lock(), Instant::now());
        if taken.clients.len() >= self.limit
            && let Some(index) = taken.one_too_many()
        {
            let client = &taken.clients[index];
            let may_go = client.since.unwrap_or(now) + GRACE;
            if client.address == address && now < may_go {
                return Err(may_go);
            }
            if let Some(client) = taken.clients.remove(index) {
                client.gives_way.cancel();
                listeners::gave_way();
            }
        }
        let id = taken.next;
        taken.next += 1;
        let gives_way = CancellationToken::new();
        taken.clients.push_back(Client {
            id,
            address,
            since: None,
            has_asked: false,
            gives_way: gives_way.clone(),
        });
        Ok(Place {
            places: self.clone(),
            id,
            gives_way,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn one_too_many(&self) -> Option<usize> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for client in &self.clients {
            *counts.entry(client.address).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let candidates = self.clients.iter().enumerate();
        let (index, _) = candidates
            .filter(|(_, client)| counts[&client.address] == most)
            .min_by_key(|(index, client)| (client.has_asked, *index))?;
        Some(index)
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.clients
            .binary_search_by_key(&id, |client| client.id)
            .ok()
    }
}

/// A client's place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    gives_way: CancellationToken,
}

impl Place {
    /// From now on it is listened to. Until then its place is lost to no newer client of its address.
    pub(crate) fn begin(&self) {
        let mut taken = self.places.lock();
        if let Some(index) = taken.position(self.id) {
            taken.clients[index].since = Some(Instant::now());
        }
    }

    /// The client has asked for something.
    pub(crate) fn has_asked(&self) {
        let mut taken = self.places.lock();
        if let Some(index) = taken.position(self.id) {
            taken.clients[index].has_asked = true;
        }
    }

    /// Waits until the place is lost: the connection has to end.
    pub(crate) async fn lost(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(index) = taken.position(self.id) {
            taken.clients.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn lost(places: &[Place]) -> Vec<bool> {
        let lost = places.iter().map(|place| place.gives_way.is_cancelled());
        lost.collect()
    }

    async fn take<const N: usize>(places: &Arc<Places>, addresses: [u8; N]) -> Vec<Place> {
        let mut taken = Vec::new();
        for last in addresses {
            let place = places.take(address(last)).await.unwrap();
            place.begin();
            taken.push(place);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_takes_the_oldest_place_of_whoever_has_most() {
        let places = Places::new(4);
        let held = take(&places, [1, 2, 2, 3]).await;
        let _newcomer = places.take(address(4)).await.unwrap();
        assert_eq!(lost(&held), [false, true, false, false]);
        assert_eq!(places.lock().clients.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_keeps_its_place_before_one_who_has_not() {
        let places = Places::new(2);
        let held = take(&places, [1, 1]).await;
        held[0].has_asked();
        advance(GRACE).await;
        let newer = places.take(address(1)).await.unwrap();
        assert_eq!(lost(&held), [false, true]);
        newer.has_asked();
        newer.begin();
        let _newest = places.take(address(1)).await.unwrap();
        assert_eq!(lost(&held), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_one_address_do_not_turn_over_faster_than_clients_can_ask() {
        let places = Places::new(2);
        let held = take(&places, [1, 1]).await;
        assert!(places.take(address(1)).await.is_none());
        assert_eq!(lost(&held), [false, false]);

        let places = Places::new(1);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let held = places.take(loopback).await.unwrap();
        held.begin();
        let begun = Instant::now();
        assert!(places.take(loopback).await.is_some());
        assert!(begun.elapsed() >= GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_free_again_once_they_are_dropped() {
        let places = Places::new(1);
        for _ in 0..3 {
            let place = places.take(address(1)).await.unwrap();
            assert!(!place.gives_way.is_cancelled());
            drop(place);
        }
        assert!(places.lock().clients.is_empty());
    }
}
