//! Direct tunnels between connections, and how many there may be.

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{channel::Channel, hbone::pool::PoolKey};

/// Bounds of a pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The most tunnels of one key, in use and idle. Connections beyond it share tunnels over
    /// HTTP/2, which costs each of them more work and the node less memory. Default 64.
    pub max_per_key: usize,
    /// The most tunnels in all. Default 1024.
    pub max_tunnels: usize,
    /// How long a tunnel is kept without a connection. Default 60 s.
    pub idle_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_per_key: 64,
            max_tunnels: 1024,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// The tunnels of an agent to its own kind, by what they may be shared by.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: PoolSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<PoolKey, Tunnels>,
    total: usize,
    next_id: u64,
    is_draining: bool,
    has_reaper: bool,
}

#[derive(Debug, Default)]
struct Tunnels {
    /// The one that was in use last is last.
    idle: Vec<Idle>,
    in_use: HashMap<u64, InUse>,
}

#[derive(Debug)]
struct Idle {
    channel: Box<Channel<TcpStream>>,
    since: Instant,
}

#[derive(Debug)]
struct InUse {
    ended: CancellationToken,
    /// It isn't to carry another connection.
    is_replaced: bool,
}

impl Tunnels {
    fn len(&self) -> usize {
        self.idle.len() + self.in_use.len()
    }
}

impl State {
    fn lease(&mut self, pool: &Pool, key: &PoolKey) -> Lease {
        let id = self.next_id;
        self.next_id += 1;
        self.total += 1;
        let ended = CancellationToken::new();
        let in_use = InUse {
            ended: ended.clone(),
            is_replaced: false,
        };
        self.keys
            .entry(key.clone())
            .or_default()
            .in_use
            .insert(id, in_use);
        Lease {
            pool: pool.clone(),
            key: key.clone(),
            id,
            ended,
        }
    }

    /// Takes idle tunnels out that `stale` says so of, and keys that have none left.
    fn sweep(&mut self, mut stale: impl FnMut(&PoolKey, &Idle) -> bool) -> Vec<Idle> {
        let mut swept = Vec::new();
        self.keys.retain(|key, tunnels| {
            swept.extend(tunnels.idle.extract_if(.., |idle| stale(key, idle)));
            tunnels.len() > 0
        });
        self.total -= swept.len();
        swept
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            state: Mutex::default(),
        }))
    }

    /// A tunnel that is idle, the warmest first. One that the other end has closed meanwhile isn't
    /// given out.
    #[must_use]
    pub fn take(&self, key: &PoolKey) -> Option<(Box<Channel<TcpStream>>, Lease)> {
        let mut state = self.lock();
        loop {
            let idle = state.keys.get_mut(key)?.idle.pop()?;
            state.total -= 1;
            if is_open(&idle.channel) {
                let lease = state.lease(self, key);
                return Some((idle.channel, lease));
            }
        }
    }

    /// Room for a new tunnel, if the bounds allow one. Idle tunnels of other keys make room.
    #[must_use]
    pub fn reserve(&self, key: &PoolKey) -> Option<Lease> {
        let settings = &self.0.settings;
        let mut state = self.lock();
        if state.is_draining
            || state
                .keys
                .get(key)
                .is_some_and(|tunnels| tunnels.len() >= settings.max_per_key)
        {
            return None;
        }
        if state.total >= settings.max_tunnels {
            let swept = state.sweep(|_, _| true);
            if swept.is_empty() {
                return None;
            }
        }
        Some(state.lease(self, key))
    }

    /// Tunnels there are: in use, being opened, and idle.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().total
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens no more connections on the tunnels of keys that match; those that are open go on.
    pub fn replace(&self, mut matches: impl FnMut(&PoolKey) -> bool) {
        let mut state = self.lock();
        for (_, tunnels) in state.keys.iter_mut().filter(|(key, _)| matches(key)) {
            tunnels
                .in_use
                .values_mut()
                .for_each(|tunnel| tunnel.is_replaced = true);
        }
        state.sweep(|key, _| matches(key));
    }

    /// Ends tunnels and the connections in them at once.
    pub fn close_matching(&self, mut matches: impl FnMut(&PoolKey) -> bool) {
        let mut state = self.lock();
        for (_, tunnels) in state.keys.iter_mut().filter(|(key, _)| matches(key)) {
            tunnels
                .in_use
                .values()
                .for_each(|tunnel| tunnel.ended.cancel());
        }
        state.sweep(|key, _| matches(key));
    }

    /// Opens no tunnel any more, and keeps none that becomes free.
    pub fn drain(&self) {
        let mut state = self.lock();
        state.is_draining = true;
        state.sweep(|_, _| true);
    }

    /// Closes what has been idle for too long, for as long as anything is idle.
    async fn reap(self) {
        loop {
            let Some(due) = self.expire() else { return };
            sleep_until(due).await;
        }
    }

    /// When to look again; `None` when nothing is idle, and this was the last look.
    fn expire(&self) -> Option<Instant> {
        let timeout = self.0.settings.idle_timeout;
        let now = Instant::now();
        let mut state = self.lock();
        state.sweep(|_, idle| idle.since + timeout <= now);
        let idle = state.keys.values().flat_map(|tunnels| &tunnels.idle);
        let oldest = idle.map(|idle| idle.since).min();
        state.has_reaper = oldest.is_some();
        oldest.map(|since| since + timeout)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing may come from the other end while no connection is in a tunnel: not even its end.
fn is_open(channel: &Channel<TcpStream>) -> bool {
    let nothing = channel.io.try_read(&mut [0]);
    channel.received.is_empty()
        && nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A tunnel's place in its pool, from before it is opened until it is idle or gone.
#[derive(Debug)]
pub struct Lease {
    pool: Pool,
    key: PoolKey,
    id: u64,
    ended: CancellationToken,
}

impl Lease {
    /// Completes when the tunnel must not be used any longer.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }

    /// The tunnel's connection has ended: it is kept for the next, unless it was replaced.
    pub fn give_back(self, channel: Box<Channel<TcpStream>>) {
        let mut state = self.pool.lock();
        let is_draining = state.is_draining;
        let Some(tunnels) = state.keys.get_mut(&self.key) else {
            return;
        };
        let in_use = tunnels.in_use.get(&self.id);
        if is_draining || in_use.is_none_or(|it| it.is_replaced || it.ended.is_cancelled()) {
            return;
        }
        tunnels.idle.push(Idle {
            channel,
            since: Instant::now(),
        });
        state.total += 1;
        if !state.has_reaper {
            state.has_reaper = true;
            tokio::spawn(self.pool.clone().reap());
        }
        // Dropped behind this lock, the lease gives its own place up.
        drop(state);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let Some(tunnels) = state.keys.get_mut(&self.key) else {
            return;
        };
        if tunnels.in_use.remove(&self.id).is_none() {
            return;
        }
        let is_empty = tunnels.len() == 0;
        state.total -= 1;
        if is_empty {
            state.keys.remove(&self.key);
        }
    }
}
