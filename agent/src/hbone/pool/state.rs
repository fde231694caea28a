//! The books of a pool: which tunnels there are, and where the next stream goes. No I/O.

use std::{collections::HashMap, error::Error};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{PoolError, PoolKey};
use crate::hbone::client::{Slot, Tunnel};

/// How an attempt to connect went, for everyone who waits for it. `None` until it is known.
pub(super) type Attempt<E> = watch::Receiver<Option<Result<(), PoolError<E>>>>;

/// Invariant: `live` has every tunnel of `entries`, every attempt, and the tunnels that were
/// forgotten but still carry streams. So it is what the bound applies to.
pub(super) struct State<E: Error + 'static> {
    entries: HashMap<PoolKey, Entry<E>>,
    live: HashMap<u64, (PoolKey, CancellationToken)>,
    next_id: u64,
    draining: bool,
}

struct Entry<E: Error + 'static> {
    tunnels: Vec<(u64, Tunnel)>,
    attempt: Option<(u64, Attempt<E>)>,
}

/// Where a stream goes.
pub(super) enum Place<E: Error + 'static> {
    /// Into a tunnel that is there.
    Slot(Tunnel, Slot),
    /// Somebody else is connecting.
    Wait(Attempt<E>),
    /// The caller is to connect.
    Connect(Task<E>, Attempt<E>),
}

/// What the task of a new tunnel needs.
pub(super) struct Task<E: Error + 'static> {
    pub(super) id: u64,
    pub(super) report: watch::Sender<Option<Result<(), PoolError<E>>>>,
    /// Cancelled when the tunnel must end at once.
    pub(super) close: CancellationToken,
}

impl<E: Error + 'static> Default for State<E> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            live: HashMap::new(),
            next_id: 0,
            draining: false,
        }
    }
}

impl<E: Error + 'static> Default for Entry<E> {
    fn default() -> Self {
        Self {
            tunnels: Vec::new(),
            attempt: None,
        }
    }
}

impl<E: Error + 'static> State<E> {
    /// Finds a place in the first tunnel that has one, so that those behind it can become idle.
    pub(super) fn place(
        &mut self,
        key: &PoolKey,
        avoid: Option<&Tunnel>,
        max_tunnels: usize,
    ) -> Result<Place<E>, PoolError<E>> {
        if self.draining {
            return Err(PoolError::Draining);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.tunnels.retain(|(_, tunnel)| !tunnel.is_draining());
            for (_, tunnel) in &entry.tunnels {
                if !avoid.is_some_and(|avoid| avoid.is(tunnel))
                    && let Some(slot) = tunnel.reserve()
                {
                    return Ok(Place::Slot(tunnel.clone(), slot));
                }
            }
            if let Some((_, attempt)) = &entry.attempt {
                return Ok(Place::Wait(attempt.clone()));
            }
        }
        if self.live.len() >= max_tunnels && !self.evict_idle() {
            return Err(PoolError::TooManyTunnels(max_tunnels));
        }

        let (report, attempt) = watch::channel(None);
        let id = self.next_id;
        self.next_id += 1;
        let close = CancellationToken::new();
        self.live.insert(id, (key.clone(), close.clone()));
        let entry = self.entries.entry(key.clone()).or_default();
        entry.attempt = Some((id, attempt.clone()));
        Ok(Place::Connect(Task { id, report, close }, attempt))
    }

    /// Ends one tunnel that carries nothing.
    fn evict_idle(&mut self) -> bool {
        let idle = self.entries.iter().find_map(|(key, entry)| {
            let idle = entry.tunnels.iter().find(|(_, t)| t.open_streams() == 0);
            idle.map(|(id, _)| (key.clone(), *id))
        });
        let Some((key, id)) = idle else {
            return false;
        };
        self.forget(&key, id);
        if let Some((_, close)) = self.live.remove(&id) {
            close.cancel();
        }
        true
    }

    /// Puts a connected tunnel in the place of its attempt. `false` if that was called off.
    pub(super) fn insert(&mut self, key: &PoolKey, id: u64, tunnel: Tunnel) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let expected = entry
            .attempt
            .take_if(|(attempt, _)| *attempt == id)
            .is_some();
        if expected {
            entry.tunnels.push((id, tunnel));
        }
        expected
    }

    /// No new stream on this tunnel; it ends by itself after the last one.
    pub(super) fn forget(&mut self, key: &PoolKey, id: u64) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.tunnels.retain(|(tunnel, _)| *tunnel != id);
            entry.attempt.take_if(|(attempt, _)| *attempt == id);
            if entry.tunnels.is_empty() && entry.attempt.is_none() {
                self.entries.remove(key);
            }
        }
    }

    /// The tunnel has ended, or its attempt has failed.
    pub(super) fn remove(&mut self, key: &PoolKey, id: u64) {
        self.forget(key, id);
        self.live.remove(&id);
    }

    pub(super) fn replace(&mut self, mut matches: impl FnMut(&PoolKey) -> bool) {
        self.entries.retain(|key, entry| {
            if matches(key) {
                entry.tunnels.clear();
            }
            !entry.tunnels.is_empty() || entry.attempt.is_some()
        });
    }

    pub(super) fn close_matching(&mut self, mut matches: impl FnMut(&PoolKey) -> bool) {
        for (key, close) in self.live.values() {
            if matches(key) {
                self.entries.remove(key);
                close.cancel();
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.entries.clear();
    }

    pub(super) fn tunnels(&self) -> usize {
        self.live.len()
    }
}
