//! The way to another agent: a tunnel for one connection where both ends are ours, a stream in a
//! shared one otherwise.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    connector::{self, TunnelConnector},
    counts::{Counts, Limits},
};
use crate::{
    channel::Channel,
    direct::{self, Answer, DirectRequest, DirectStream, Home, Lease, TunnelError},
    hbone::{
        Authority, Baggage, HboneStream, RequestHeaders,
        client::OpenError,
        pool::{Pool, PoolError, PoolKey, PoolSettings},
        server::InboundRequest,
        stream::StreamError,
    },
    identity::tls::Protocols,
};

/// TCP and TLS to another agent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Direct tunnels that are being opened at once, to one agent and to all. An agent takes 64 handshakes
/// of one address at a time; connections beyond these share a tunnel rather than wait.
const HANDSHAKES: Limits = Limits {
    per_key: 48,
    total: 512,
};
/// For how long an agent that chose HTTP/2 isn't asked again for a direct tunnel.
const REMEMBER_CHOICE: Duration = Duration::from_secs(60);
/// Agents whose choice is remembered; beyond it all are asked again.
const MAX_CHOICES: usize = 4096;

type Error = PoolError<connector::Error>;

/// One connection on its way through a tunnel.
#[derive(Debug)]
pub enum TunnelStream {
    /// Alone in its tunnel.
    Direct(DirectStream),
    /// Beside others.
    Multiplexed(HboneStream),
}

/// A connection that another agent asks for. Dropped without an answer, it is reset.
#[derive(Debug)]
pub(crate) enum TunnelRequest {
    Direct(DirectRequest),
    Multiplexed(Box<InboundRequest>),
}

/// Why the other agent couldn't be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    Direct(#[from] TunnelError),
    #[error(transparent)]
    Multiplexed(#[from] StreamError),
}

impl TunnelRequest {
    /// Where the client wants to go.
    pub(crate) fn authority(&self) -> &Authority {
        match self {
            Self::Direct(request) => &request.authority,
            Self::Multiplexed(request) => &request.authority,
        }
    }

    /// What is said about the client. Not evidence.
    pub(crate) fn headers(&self) -> &RequestHeaders {
        match self {
            Self::Direct(request) => &request.headers,
            Self::Multiplexed(request) => &request.headers,
        }
    }

    /// Says that the connection is there, and what the workload calls itself.
    pub(crate) async fn accept(
        self,
        server: Baggage,
        answer: Answer,
    ) -> Result<TunnelStream, AnswerError> {
        Ok(match self {
            Self::Direct(request) => TunnelStream::Direct(request.accept(server, answer).await?),
            Self::Multiplexed(request) => TunnelStream::Multiplexed(request.accept(&server)?),
        })
    }

    /// Says why not. The reason is for our log only.
    pub(crate) async fn refuse(self, status: StatusCode, reason: &str) {
        match self {
            Self::Direct(request) => request.refuse(status, reason).await,
            Self::Multiplexed(request) => request.refuse(status, reason),
        }
    }
}

/// A tunnel that nothing is in, and that is ours alone. Dropped, it is closed.
pub(crate) struct IdleTunnel {
    channel: Box<Channel<TcpStream>>,
    lease: Lease,
}

impl IdleTunnel {
    /// It isn't needed.
    pub(crate) fn give_back(self) {
        self.lease.give_back(self.channel);
    }
}

/// Tunnels to other agents.
pub(crate) struct Tunnels {
    connector: TunnelConnector,
    direct: direct::Pool,
    handshakes: Arc<Counts<SocketAddr>>,
    multiplexed: Pool<TunnelConnector>,
    /// Agents that chose HTTP/2, and until when that is believed.
    choices: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Tunnels {
    /// None is open.
    pub(super) fn new(connector: TunnelConnector) -> Self {
        Self {
            direct: direct::Pool::new(direct::PoolSettings::default()),
            handshakes: Arc::default(),
            multiplexed: Pool::new(connector.clone(), PoolSettings::default()),
            connector,
            choices: Mutex::default(),
        }
    }

    /// A tunnel that is there for a connection.
    pub(crate) fn idle(&self, key: &PoolKey) -> Option<IdleTunnel> {
        let (channel, lease) = self.direct.take(key)?;
        Some(IdleTunnel { channel, lease })
    }

    /// Has the agent at `key.address` make a connection, in a tunnel that is there if one is given. The client's first
    /// bytes go with the question then, at most what a record holds.
    ///
    /// # Errors
    /// [`PoolError`].
    pub(crate) async fn open(
        &self,
        key: &PoolKey,
        authority: &Authority,
        headers: &RequestHeaders,
        idle: Option<(IdleTunnel, &[u8])>,
        deadline: Instant,
    ) -> Result<TunnelStream, Error> {
        // One that looked open may have been closed at that moment: nothing was lost with it, but for what went ahead.
        if let Some((IdleTunnel { channel, lease }, ahead)) = idle {
            match open_in(channel, lease, authority, headers, ahead, deadline).await {
                Err(OpenError::TunnelClosed(_)) if ahead.is_empty() => {}
                opened => return Ok(TunnelStream::Direct(opened?)),
            }
        }
        let mut closed_at_once = false;
        while !self.chose_http2(key.address)
            && let Ok(handshake) = self.handshakes.try_count(key.address, HANDSHAKES)
            && let Some(lease) = self.direct.reserve(key)
        {
            let connected = tokio::select! {
                connected = timeout(CONNECT_TIMEOUT, self.connector.channel(key, Protocols::Any)) => {
                    connected.map_err(|_| PoolError::ConnectTimeout(CONNECT_TIMEOUT))?
                }
                () = lease.ended() => return Err(PoolError::Invalidated),
            };
            let (channel, is_direct) =
                connected.map_err(|error| PoolError::Connect(Arc::new(error)))?;
            drop(handshake);
            if is_direct {
                match open_in(channel, lease, authority, headers, &[], deadline).await {
                    // Who had just taken it is being replaced: its successor takes the next.
                    Err(OpenError::TunnelClosed(_)) if !closed_at_once => {
                        closed_at_once = true;
                        continue;
                    }
                    opened => return Ok(TunnelStream::Direct(opened?)),
                }
            }
            self.remember_http2(key.address);
            break;
        }
        let stream = self
            .multiplexed
            .open(key, authority, headers, deadline)
            .await?;
        Ok(TunnelStream::Multiplexed(stream))
    }

    /// Tunnels there are, idle ones included.
    pub(super) fn len(&self) -> usize {
        self.direct.len() + self.multiplexed.tunnels()
    }

    /// Opens no more connections in the tunnels of keys that match: their certificates were
    /// renewed. What is open goes on to its end.
    pub(super) fn replace(&self, mut matches: impl FnMut(&PoolKey) -> bool) {
        self.direct.replace(&mut matches);
        self.multiplexed.replace(matches);
    }

    /// Ends tunnels and what is in them at once.
    pub(crate) fn close_matching(&self, mut matches: impl FnMut(&PoolKey) -> bool) {
        self.direct.close_matching(&mut matches);
        self.multiplexed.close_matching(matches);
    }

    /// Opens nothing any more, and returns when the shared tunnels have ended. The connections in
    /// direct ones end with whoever carries them.
    pub(super) async fn drain(&self) {
        self.direct.drain();
        self.multiplexed.drain().await;
    }

    fn chose_http2(&self, address: SocketAddr) -> bool {
        let choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        choices
            .get(&address)
            .is_some_and(|until| Instant::now() < *until)
    }

    fn remember_http2(&self, address: SocketAddr) {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        if choices.len() >= MAX_CHOICES {
            choices.clear();
        }
        choices.insert(address, Instant::now() + REMEMBER_CHOICE);
    }
}

async fn open_in(
    mut channel: Box<Channel<TcpStream>>,
    lease: Lease,
    authority: &Authority,
    headers: &RequestHeaders,
    ahead: &[u8],
    deadline: Instant,
) -> Result<DirectStream, OpenError> {
    match direct::open(&mut channel, authority, headers, ahead, deadline).await {
        Ok(peer) => Ok(DirectStream::new(channel, Home::Pool(lease), peer)),
        Err(error) => {
            // Who was refused leaves a tunnel that is as good as before.
            if error.is_answer() {
                lease.give_back(channel);
            }
            Err(error)
        }
    }
}
