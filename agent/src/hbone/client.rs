//! The client's side of a tunnel.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{Connection, SendRequest},
};
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use super::keepalive::PingTimeout;
use super::{
    Authority, HboneStream, MAX_HEADER_LIST, REMEMBER_RESETS_FOR, REMEMBERED_RESETS,
    RequestHeaders, SMALL_FRAME_BUDGET, Settings, keepalive::keepalive, windows::Windows,
};

/// One HTTP/2 connection to another agent. Clones share it; it closes by itself when no clone and
/// no stream is left.
#[derive(Debug, Clone)]
pub struct Tunnel {
    request: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    windows: Arc<Windows>,
    max_streams: usize,
    /// Slots taken: streams open, and streams being opened.
    open: AtomicUsize,
    /// When a slot was given back last.
    idle_since: Mutex<Instant>,
    /// Cancelled by [`Tunnel::close`].
    close: CancellationToken,
    /// Cancelled when the driver has ended.
    closed: CancellationToken,
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// HTTP/2 or the stream below failed.
    #[error("the tunnel failed: {0}")]
    Http2(#[from] h2::Error),
    /// The other end is gone.
    #[error(transparent)]
    Dead(#[from] PingTimeout),
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// 400.
    #[error("the destination's agent found the request malformed, or not for its node (400)")]
    BadRequest,
    /// 401 or 403.
    #[error("denied by the destination's policy ({0})")]
    Denied(StatusCode),
    /// 503.
    #[error("the destination's agent could not reach the workload (503)")]
    Unavailable,
    /// Another status than 200.
    #[error("the destination's agent refused the stream with status {0}")]
    Status(StatusCode),
    /// The other end reset this stream instead of answering.
    #[error("the destination's agent reset the stream instead of answering ({0})")]
    Reset(Reason),
    /// GOAWAY, an error of the connection, or a ping unanswered.
    #[error("the tunnel closed before the stream was open{}", cause(.0.as_deref()))]
    TunnelClosed(Option<Arc<h2::Error>>),
    /// The other end of a direct tunnel breaks the protocol.
    #[error("the tunnel is broken: {0}")]
    Broken(String),
    /// All streams that the tunnel may carry are in use.
    #[error("the tunnel carries as many streams as it may")]
    TunnelFull,
    /// No answer within the deadline.
    #[error("the destination's agent did not answer in time")]
    Timeout,
}

fn cause(error: Option<&h2::Error>) -> String {
    error.map(|error| format!(": {error}")).unwrap_or_default()
}

impl OpenError {
    /// Whether the same request may succeed on another tunnel. Nothing of the application's data
    /// has been sent before the answer, so asking again is safe.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TunnelClosed(_) | Self::TunnelFull => true,
            Self::Reset(reason) => *reason == Reason::REFUSED_STREAM,
            Self::BadRequest
            | Self::Denied(_)
            | Self::Unavailable
            | Self::Status(_)
            | Self::Broken(_)
            | Self::Timeout => false,
        }
    }

    /// Whether the destination's agent has answered, with a refusal.
    #[must_use]
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::BadRequest | Self::Denied(_) | Self::Unavailable | Self::Status(_)
        )
    }

    /// What a status other than 200 means.
    #[must_use]
    pub(crate) fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::BadRequest,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(status),
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            other => Self::Status(other),
        }
    }
}

impl From<h2::Error> for OpenError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::TunnelClosed(Some(Arc::new(error))),
        }
    }
}

impl Tunnel {
    /// Starts HTTP/2 over an authenticated stream. The future drives the tunnel and must be
    /// spawned; it ends with the tunnel.
    ///
    /// # Errors
    /// When the preface can't be sent.
    pub async fn handshake<Io>(
        io: Io,
        settings: Settings,
    ) -> Result<
        (
            Self,
            impl Future<Output = Result<(), TunnelError>> + Send + use<Io>,
        ),
        TunnelError,
    >
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (request, connection) = h2::client::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.max_frame_size)
            .max_send_buffer_size(settings.max_send_buffer)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESETS_FOR)
            .data_frame_budget(SMALL_FRAME_BUDGET)
            .initial_max_send_streams(settings.max_streams as usize)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;
        let shared = Arc::new(Shared {
            windows: Windows::new(&settings),
            max_streams: settings.max_streams as usize,
            open: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            close: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        let driver = drive(connection, settings, Arc::clone(&shared));
        Ok((Self { request, shared }, driver))
    }

    /// Asks the other end for a connection to `authority`.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::is_retryable`] tells whether another tunnel may do.
    pub async fn open(
        &self,
        authority: &Authority,
        headers: &RequestHeaders,
        deadline: Instant,
    ) -> Result<HboneStream, OpenError> {
        let slot = self.reserve().ok_or(OpenError::TunnelFull)?;
        self.open_in(slot, authority, headers, deadline).await
    }

    /// Takes the place of one stream, if there is one.
    pub(super) fn reserve(&self) -> Option<Slot> {
        let max = self.max_streams();
        self.shared
            .open
            .try_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < max).then_some(open + 1)
            })
            .ok()?;
        Some(Slot(Arc::clone(&self.shared)))
    }

    /// As [`Self::open`], in a place taken before.
    pub(super) async fn open_in(
        &self,
        slot: Slot,
        authority: &Authority,
        headers: &RequestHeaders,
        deadline: Instant,
    ) -> Result<HboneStream, OpenError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = authority
            .to_string()
            .try_into()
            .map_err(|_| OpenError::BadRequest)?;
        headers.insert_into(request.headers_mut());

        let exchange = async {
            let mut sender = self.request.clone().ready().await?;
            let (response, send) = sender.send_request(request, false)?;
            drop(sender);
            Ok::<_, OpenError>((response.await?, send))
        };
        let closed = self.shared.closed.cancelled();
        let (response, send) = select! {
            biased;
            done = timeout_at(deadline, exchange) => done.map_err(|_| OpenError::Timeout)??,
            () = closed => return Err(OpenError::TunnelClosed(None)),
        };
        if response.status() != StatusCode::OK {
            return Err(OpenError::from_status(response.status()));
        }
        let (head, receive) = response.into_parts();
        let peer = RequestHeaders::parse(&head.headers).baggage;
        let windows = Arc::clone(&self.shared.windows);
        Ok(HboneStream::new(send, receive, windows, peer, Some(slot)))
    }

    /// How many streams the tunnel may carry: our setting, or the peer's if that is less.
    #[must_use]
    pub fn max_streams(&self) -> usize {
        let peer = self.request.current_max_send_streams();
        self.shared.max_streams.min(peer)
    }

    /// Streams open or being opened.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// The tunnel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// The tunnel takes no new stream: it has ended, or the other end said GOAWAY.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let ready = self.request.clone().poll_ready(&mut context);
        self.is_closed() || self.shared.close.is_cancelled() || matches!(ready, Poll::Ready(Err(_)))
    }

    /// Ends the tunnel and every stream in it, now.
    pub fn close(&self) {
        self.shared.close.cancel();
    }

    /// Tells whether the tunnel is in use, without keeping it open.
    pub(super) fn idle(&self) -> Idle {
        Idle(Arc::clone(&self.shared))
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// The place of one stream in a tunnel.
#[derive(Debug)]
pub(super) struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut since = self
            .0
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *since = Instant::now();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a tunnel is in use.
#[derive(Debug)]
pub(super) struct Idle(Arc<Shared>);

impl Idle {
    pub(super) fn in_use(&self) -> bool {
        self.0.open.load(Ordering::Acquire) > 0
    }

    /// When its last stream ended; when it was set up if it had none.
    pub(super) fn since(&self) -> Instant {
        *self
            .0
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drive<Io>(
    mut connection: Connection<Io, Bytes>,
    settings: Settings,
    shared: Arc<Shared>,
) -> Result<(), TunnelError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _closed = shared.closed.clone().drop_guard();
    let windows = &shared.windows;
    let pings = connection.ping_pong();
    let mut keepalive = pin!(async {
        match pings {
            Some(pings) => keepalive(pings, &settings, windows).await,
            None => std::future::pending().await,
        }
    });
    loop {
        select! {
            ended = &mut connection => return Ok(ended?),
            () = windows.changed() => windows.adjust(&mut connection),
            dead = &mut keepalive => return Err(dead.into()),
            () = shared.close.cancelled() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
