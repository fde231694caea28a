//! Tunnels kept warm, so that most connections need no handshake.

use std::{
    convert::Infallible,
    fmt,
    future::{self, Future},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    Authority, HboneStream, RequestHeaders, Settings,
    client::{Idle, OpenError, Slot, Tunnel, TunnelError},
};
use crate::{discovery::model::WorkloadUid, identity::Identity};

mod state;

use state::{Place, State, Task};

/// What a tunnel may be shared by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Whose certificate the tunnel was opened with.
    pub source: Identity,
    /// Whose certificate the other end showed.
    pub destination: Identity,
    /// This life of the destination pod: whoever has its address later is another.
    pub uid: WorkloadUid,
    /// Where the tunnel goes: the node's agent, or the pod itself.
    pub address: SocketAddr,
}

/// Makes the authenticated stream below a tunnel: TCP and TLS.
pub trait Connector: Send + Sync + 'static {
    /// The stream.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Why there is none.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Connects as `key.source` and makes sure that `key.destination` is at the other end.
    fn connect(&self, key: &PoolKey) -> impl Future<Output = Result<Self::Io, Self::Error>> + Send;
}

/// Bounds of a pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// How each tunnel is set up. `max_streams` of it is when another tunnel is opened.
    pub tunnel: Settings,
    /// How long a tunnel without streams is kept. Default 5 min.
    pub idle_timeout: Duration,
    /// The most tunnels of the whole pool, those that are being opened included. Default 4096.
    pub max_tunnels: usize,
    /// How long a connector may take. Default 10 s.
    pub connect_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            tunnel: Settings::default(),
            idle_timeout: Duration::from_secs(300),
            max_tunnels: 4096,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the pool has no stream. `E` is the connector's error.
#[derive(Debug, thiserror::Error)]
pub enum PoolError<E: std::error::Error + 'static> {
    /// No TCP or TLS to the destination; every caller that waited for it gets the same cause.
    #[error("could not connect the tunnel: {0}")]
    Connect(#[source] Arc<E>),
    /// TCP or TLS took longer than `connect_timeout`.
    #[error("connecting the tunnel took longer than {}s; a NetworkPolicy may block port 15008, or the other agent is overloaded", .0.as_secs())]
    ConnectTimeout(Duration),
    /// HTTP/2 could not be started.
    #[error("the tunnel's HTTP/2 handshake failed: {0}")]
    Handshake(#[source] Arc<TunnelError>),
    /// A tunnel was there, and the stream was refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The caller's deadline passed while a tunnel was being connected.
    #[error("no tunnel was ready before the deadline")]
    Timeout,
    /// `max_tunnels` are open and none of them is idle.
    #[error("all {0} tunnels that this agent may have are in use")]
    TooManyTunnels(usize),
    /// The workload, the identity or the certificate went away while a tunnel was being connected.
    #[error("the tunnel's workload or certificate is no longer valid")]
    Invalidated,
    /// [`Pool::drain`] was called.
    #[error("the agent is shutting down")]
    Draining,
}

impl<E: std::error::Error + 'static> Clone for PoolError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Connect(cause) => Self::Connect(Arc::clone(cause)),
            Self::ConnectTimeout(limit) => Self::ConnectTimeout(*limit),
            Self::Handshake(cause) => Self::Handshake(Arc::clone(cause)),
            Self::Open(error) => Self::Open(error.clone()),
            Self::Timeout => Self::Timeout,
            Self::TooManyTunnels(max) => Self::TooManyTunnels(*max),
            Self::Invalidated => Self::Invalidated,
            Self::Draining => Self::Draining,
        }
    }
}

/// The pool. Clones share it.
pub struct Pool<C: Connector>(Arc<Inner<C>>);

struct Inner<C: Connector> {
    connector: C,
    settings: PoolSettings,
    state: Mutex<State<C::Error>>,
    /// One task for each tunnel, from before it is connected until it has ended.
    tasks: TaskTracker,
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("tunnels", &self.tunnels())
            .finish_non_exhaustive()
    }
}

impl<C: Connector> Pool<C> {
    /// An empty pool.
    #[must_use]
    pub fn new(connector: C, settings: PoolSettings) -> Self {
        Self(Arc::new(Inner {
            connector,
            settings,
            state: Mutex::new(State::default()),
            tasks: TaskTracker::new(),
        }))
    }

    /// Opens a stream on a tunnel that is there, or on a new one. A tunnel that closes before it
    /// has answered is replaced by another, once.
    ///
    /// # Errors
    /// [`PoolError`]; a failed connect is told to everyone who waits for it, and not tried again.
    pub async fn open(
        &self,
        key: &PoolKey,
        authority: &Authority,
        headers: &RequestHeaders,
        deadline: Instant,
    ) -> Result<HboneStream, PoolError<C::Error>> {
        let mut failed: Option<Tunnel> = None;
        loop {
            let (tunnel, slot) = self.slot(key, failed.as_ref(), deadline).await?;
            match tunnel.open_in(slot, authority, headers, deadline).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.is_retryable() && failed.is_none() => {
                    debug!(%error, address = %key.address, "trying another tunnel");
                    failed = Some(tunnel);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A place in a tunnel other than `avoid`, connected first if need be.
    async fn slot(
        &self,
        key: &PoolKey,
        avoid: Option<&Tunnel>,
        deadline: Instant,
    ) -> Result<(Tunnel, Slot), PoolError<C::Error>> {
        loop {
            let place = self.lock().place(key, avoid, self.0.settings.max_tunnels)?;
            let mut attempt = match place {
                Place::Slot(tunnel, slot) => return Ok((tunnel, slot)),
                Place::Wait(attempt) => attempt,
                Place::Connect(task, attempt) => {
                    // Spawned, so that a caller that gives up doesn't end it for the others.
                    self.0.tasks.spawn(self.clone().run(key.clone(), task));
                    attempt
                }
            };
            // The others may have taken all of its places when the attempt has succeeded. The
            // deadline bounds how often we come back.
            match timeout_at(deadline, attempt.wait_for(Option::is_some)).await {
                Err(_) => return Err(PoolError::Timeout),
                Ok(Err(_)) => return Err(PoolError::Invalidated),
                Ok(Ok(result)) => result.clone().unwrap_or(Ok(()))?,
            }
        }
    }

    /// Tunnels there are: connecting, idle and draining ones included.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.lock().tunnels()
    }

    /// Opens no more streams on the tunnels of keys that match: their certificates were renewed.
    /// Streams that are open go on to their end, and so do attempts to connect, whose certificate
    /// is good for as long as it was renewed ahead of time.
    pub fn replace(&self, matches: impl FnMut(&PoolKey) -> bool) {
        self.lock().replace(matches);
    }

    /// Ends tunnels and their streams at once, those that were replaced before included: for
    /// peers that must not be talked to any more.
    pub fn close_matching(&self, matches: impl FnMut(&PoolKey) -> bool) {
        self.lock().close_matching(matches);
    }

    /// Opens no stream any more, and returns once those that are open have ended. The caller sets
    /// a limit, and ends what is left with [`Self::close_matching`].
    pub async fn drain(&self) {
        self.lock().drain();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// The life of one tunnel.
    async fn run(self, key: PoolKey, task: Task<C::Error>) {
        let Task { id, report, close } = task;
        let member = Member {
            pool: &self,
            key: &key,
            id,
        };
        let connected = select! {
            connected = self.connect(&key) => connected,
            () = close.cancelled() => Err(PoolError::Invalidated),
        };
        let (tunnel, driver) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                // Leave first: whoever comes after the report makes another attempt.
                drop(member);
                report.send_replace(Some(Err(error)));
                return;
            }
        };

        // From here on the pool holds the tunnel, and the tunnel lives for as long as that or
        // until its last stream has ended.
        let idle = tunnel.idle();
        let inserted = self.lock().insert(&key, id, tunnel);
        report.send_replace(Some(if inserted {
            Ok(())
        } else {
            Err(PoolError::Invalidated)
        }));
        let ended = select! {
            ended = driver => ended,
            never = self.forget_when_idle(&key, id, idle) => match never {},
            () = close.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            debug!(%error, address = %key.address, "tunnel ended");
        }
    }

    async fn connect(
        &self,
        key: &PoolKey,
    ) -> Result<
        (
            Tunnel,
            impl Future<Output = Result<(), TunnelError>> + Send + use<C>,
        ),
        PoolError<C::Error>,
    > {
        let limit = self.0.settings.connect_timeout;
        let connect = async {
            let io = self.0.connector.connect(key).await;
            let io = io.map_err(|error| PoolError::Connect(Arc::new(error)))?;
            Tunnel::handshake(io, self.0.settings.tunnel.clone())
                .await
                .map_err(|error| PoolError::Handshake(Arc::new(error)))
        };
        timeout(limit, connect)
            .await
            .map_err(|_| PoolError::ConnectTimeout(limit))?
    }

    /// Under the lock, because places are given out under it.
    async fn forget_when_idle(&self, key: &PoolKey, id: u64, idle: Idle) -> Infallible {
        let timeout = self.0.settings.idle_timeout;
        loop {
            // A tunnel in use is looked at again later: it can't become due before.
            let since = if idle.in_use() {
                Instant::now()
            } else {
                idle.since()
            };
            sleep_until(since + timeout).await;
            let mut state = self.lock();
            if !idle.in_use() && idle.since() + timeout <= Instant::now() {
                state.forget(key, id);
                break;
            }
        }
        // Nothing holds it any more: the driver ends.
        future::pending().await
    }

    fn lock(&self) -> MutexGuard<'_, State<C::Error>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a tunnel off the books when its task ends, even by a panic of the connector.
struct Member<'a, C: Connector> {
    pool: &'a Pool<C>,
    key: &'a PoolKey,
    id: u64,
}

impl<C: Connector> Drop for Member<'_, C> {
    fn drop(&mut self) {
        self.pool.lock().remove(self.key, self.id);
    }
}

#[cfg(test)]
mod tests;
