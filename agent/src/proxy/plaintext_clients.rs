//! Who speaks plaintext to pods of this node, for operators who want to demand mutual TLS.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::discovery::model::WorkloadUid;

/// Pairs of client and port of a pod that are remembered. Whoever brings more is only counted: an address is
/// easily changed.
const MOST: usize = 4096;

/// Plaintext that came for pods of this node since the agent began.
#[derive(Debug, Default)]
pub struct PlaintextClients(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    seen: HashMap<Kind, Seen>,
    left_out: u64,
}

/// Connections that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The client's address, which proves nothing.
    pub client: IpAddr,
    /// The pod that it asked.
    pub pod: WorkloadUid,
    /// And where.
    pub server: SocketAddr,
}

/// What came of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub connections: u64,
    /// The last of them.
    pub last: Instant,
}

impl PlaintextClients {
    /// Notes a connection, whether it is allowed or not. `is_alive` says which pods are still there.
    pub(super) fn note(&self, kind: Kind, now: Instant, is_alive: impl Fn(&WorkloadUid) -> bool) {
        let mut remembered = self.lock();
        if let Some(seen) = remembered.seen.get_mut(&kind) {
            seen.connections += 1;
            seen.last = now;
            return;
        }
        if remembered.seen.len() >= MOST {
            remembered.seen.retain(|kind, _| is_alive(&kind.pod));
        }
        if remembered.seen.len() >= MOST {
            remembered.left_out += 1;
            return;
        }
        let first = Seen {
            connections: 1,
            last: now,
        };
        remembered.seen.insert(kind, first);
    }

    /// All that is remembered, and how many connections were of kinds that there was no room for.
    #[must_use]
    pub fn list(&self) -> (Vec<(Kind, Seen)>, u64) {
        let remembered = self.lock();
        let seen = remembered.seen.iter();
        let all = seen.map(|(kind, seen)| (kind.clone(), *seen)).collect();
        (all, remembered.left_out)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // Nothing that is done under the lock leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(client: u32, pod: &str) -> Kind {
        Kind {
            client: IpAddr::from(client.to_be_bytes()),
            pod: WorkloadUid(pod.into()),
            server: ([10, 0, 0, 1], 80).into(),
        }
    }

    #[test]
    fn connections_of_a_kind_are_counted_together() {
        let (clients, now) = (PlaintextClients::default(), Instant::now());
        for client in [1, 2, 1] {
            clients.note(kind(client, "web"), now, |_| true);
        }
        let (mut seen, left_out) = clients.list();
        seen.sort_by_key(|(kind, _)| kind.client);
        let counts: Vec<_> = seen.iter().map(|(_, seen)| seen.connections).collect();
        assert_eq!((counts, left_out), (vec![2, 1], 0));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_room_and_gone_pods_give_theirs() {
        let (clients, now) = (PlaintextClients::default(), Instant::now());
        let most = u32::try_from(MOST).unwrap();
        for client in 0..most + 3 {
            clients.note(kind(client, "web"), now, |_| true);
        }
        let (seen, left_out) = clients.list();
        assert_eq!((seen.len(), left_out), (MOST, 3));
        clients.note(kind(0, "next"), now, |uid| *uid.0 != *"web");
        assert_eq!(clients.list().0.len(), 1);
    }
}
