//! A new connection to an endpoint.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::either::Either;

use super::driven::Driven;
use crate::{
    discovery::model::ConnectionPool,
    hbone::RequestHeaders,
    proxy::{error::Error, tunnel_io::TunnelIo},
    waypoint::{
        Waypoint,
        http::body::RequestBody,
        onward::Onward,
        resilience::{BackendState, ConnectionPlace, Overload, Pending},
        target::Target,
    },
};

/// What may be in flight of one response's body, and of all of a connection's, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Why a request has no answer.
pub(in crate::waypoint::http) enum SendError {
    /// There is no connection to the endpoint, and nothing was sent.
    Connect {
        error: ConnectError,
        unsent: Box<Request<RequestBody>>,
    },
    /// There may be no connection more.
    Overloaded(Overload),
    /// There was one, and the endpoint closed it under the request.
    Closed(hyper::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint::http) enum ConnectError {
    #[error(transparent)]
    Overloaded(#[from] Overload),
    #[error(transparent)]
    Connect(#[from] Error),
    #[error("{0}")]
    Handshake(#[from] hyper::Error),
}

impl ConnectError {
    /// With the request that it was for.
    pub(super) fn of(self, unsent: Request<RequestBody>) -> SendError {
        match self {
            Self::Overloaded(overload) => SendError::Overloaded(overload),
            error => SendError::Connect {
                error,
                unsent: Box::new(unsent),
            },
        }
    }
}

/// A request on its way to an endpoint.
pub(super) struct Call<'a> {
    pub(super) waypoint: &'a Arc<Waypoint>,
    pub(super) target: &'a Target,
    /// Of its service, if it is for one.
    pub(super) state: Option<&'a Arc<BackendState>>,
}

impl Call<'_> {
    /// How connections to it are used.
    pub(super) fn pool(&self) -> ConnectionPool {
        self.state
            .map(|state| state.policy().connection_pool)
            .unwrap_or_default()
    }

    /// Enters a request that waits for a connection.
    pub(super) fn pending(&self) -> Result<Option<Pending>, Overload> {
        self.state.map(|state| state.pending()).transpose()
    }

    pub(super) async fn http1(&self) -> Result<Driven, ConnectError> {
        let _pending = self.pending()?;
        let io = self.connect().await?;
        let tasks = self.waypoint.core.tasks.clone();
        Ok(Driven::new(io, tasks).await?)
    }

    /// Those who wait for it are pending already.
    pub(super) async fn http2(&self) -> Result<http2::SendRequest<RequestBody>, ConnectError> {
        let io = self.connect().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        self.waypoint.core.tasks.spawn(async move {
            // What went wrong is told to whoever has sent a request.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Requests of several clients go through it, so that it is none of theirs.
    async fn connect(&self) -> Result<TokioIo<Placed>, ConnectError> {
        let place = self.state.map(|state| state.connection()).transpose()?;
        let headers = RequestHeaders::default();
        let onward = Onward::open(self.waypoint, self.target, &headers);
        let io = Box::pin(onward).await?.into_io();
        Ok(TokioIo::new(Placed { io, _place: place }))
    }
}

/// A connection that has its place for as long as there is anything of it: longer than HTTP, if it is upgraded.
struct Placed {
    io: Either<Box<TunnelIo>, TcpStream>,
    _place: Option<ConnectionPlace>,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
