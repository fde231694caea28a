//! Moves the bytes of one connection until both directions have ended.
//!
//! To the two ends it must look as if they had each other: a half-close arrives as a half-close, a
//! reset as a reset, and a reader that stops makes the writer stop. A connection that is idle
//! holds no buffer.

use std::{io, net::Shutdown, sync::Arc, time::Duration};

use h2::Reason;
use rustix::{
    buffer::spare_capacity,
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};
use tokio_util::sync::CancellationToken;

use super::tunnels::TunnelStream;
use crate::{
    channel::RecordError, direct::FrameError, hbone::stream::StreamError, splice::Leg,
    telemetry::Transfer,
};

mod direct;
mod multiplexed;
pub(crate) mod records;
mod relay;
mod tcp;

pub use self::{relay::relay, tcp::copy_tcp};

/// The buffer that a connection starts with when it has something to read, in bytes.
const MIN_BUFFER: usize = 16 * 1024;
/// The buffer that a connection gets to which keeps filling the smaller ones, in bytes.
const MAX_BUFFER: usize = 256 * 1024;

/// How much of what a client says first goes with the question for its connection, in bytes: a request, as most are.
const AHEAD: usize = 4 * 1024;

/// Why a copy ended before both sides had finished. Both have been reset by then.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// RST from the client.
    #[error("the client reset the connection")]
    ClientReset,
    /// RST from the server.
    #[error("the server reset the connection")]
    ServerReset,
    /// The client's socket failed otherwise.
    #[error("the connection to the client failed: {0}")]
    Client(#[source] io::Error),
    /// The server's socket failed otherwise.
    #[error("the connection to the server failed: {0}")]
    Server(#[source] io::Error),
    /// The agent at the other end reset the stream: its side of the connection was reset.
    #[error("the other end of the tunnel reset the connection ({0})")]
    TunnelReset(Reason),
    /// The tunnel went away under the connection.
    #[error("the tunnel closed under the connection: {0}")]
    TunnelClosed(Arc<h2::Error>),
    /// A direct tunnel ended before the connection in it had.
    #[error("the other end reset the connection, or its agent is gone")]
    TunnelCut,
    /// A direct tunnel failed otherwise.
    #[error("the tunnel failed: {0}")]
    TunnelFailed(#[source] io::Error),
    /// The records of a direct tunnel aren't what TLS allows.
    #[error("the tunnel failed: {0}")]
    Tls(#[source] RecordError),
    /// The other agent breaks the direct protocol.
    #[error("the other agent sent {0}")]
    Protocol(#[source] FrameError),
    /// Revoked by policy, or cut off at the end of a drain.
    #[error("the connection was closed by the agent")]
    Cancelled,
}

impl CopyError {
    pub(super) fn client(error: io::Error) -> Self {
        if is_reset(&error) {
            Self::ClientReset
        } else {
            Self::Client(error)
        }
    }

    pub(crate) fn server(error: io::Error) -> Self {
        if is_reset(&error) {
            Self::ServerReset
        } else {
            Self::Server(error)
        }
    }

    pub(crate) fn tunnel(error: io::Error) -> Self {
        if is_reset(&error) {
            Self::TunnelCut
        } else {
            Self::TunnelFailed(error)
        }
    }
}

/// Who is at the TCP end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpSide {
    /// The client: this is the agent of its node.
    Client,
    /// The server: this is the agent of its node.
    Server,
}

impl TcpSide {
    fn error(self, error: io::Error) -> CopyError {
        match self {
            Self::Client => CopyError::client(error),
            Self::Server => CopyError::server(error),
        }
    }

    /// Counts what has gone into the tunnel.
    fn count_up(self, transfer: &Transfer, bytes: usize) {
        match self {
            Self::Client => transfer.add_received(bytes as u64),
            Self::Server => transfer.add_sent(bytes as u64),
        }
    }

    /// Counts what has come out of it.
    fn count_down(self, transfer: &Transfer, bytes: usize) {
        match self {
            Self::Client => transfer.add_sent(bytes as u64),
            Self::Server => transfer.add_received(bytes as u64),
        }
    }
}

/// Copies between a socket and a tunnel until both directions have ended, or one side fails, or
/// `cancellation`: then both are reset.
///
/// # Errors
/// [`CopyError`] says which side failed and how.
pub async fn copy_tunnel(
    tcp: impl Into<ResetOnDrop>,
    side: TcpSide,
    stream: TunnelStream,
    transfer: &Transfer,
    cancellation: CancellationToken,
) -> Result<(), CopyError> {
    let tcp = tcp.into();
    match stream {
        TunnelStream::Direct(stream) => {
            direct::copy_direct(tcp, side, stream, transfer, cancellation).await
        }
        TunnelStream::Multiplexed(stream) => {
            // Much larger than the other, which is the usual one.
            let copy = multiplexed::copy_multiplexed(tcp, side, stream, transfer, cancellation);
            Box::pin(copy).await
        }
    }
}

impl From<StreamError> for CopyError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reset(reason) => Self::TunnelReset(reason),
            StreamError::TunnelClosed(cause) => Self::TunnelClosed(cause),
        }
    }
}

/// A write into a connection that was reset is told either way, depending on who was first.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A TCP connection that is reset when it closes, unless both its directions ended well: an
/// application must not take a connection that was cut off for one that was complete. The kernel
/// is told from the start, since it may be the one that closes, after the agent was killed.
#[derive(Debug)]
pub struct ResetOnDrop {
    stream: TcpStream,
    leg: Leg,
}

impl From<TcpStream> for ResetOnDrop {
    fn from(stream: TcpStream) -> Self {
        // It fails only on what isn't a socket.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        let leg = Leg::default();
        Self { stream, leg }
    }
}

impl ResetOnDrop {
    /// The other end is a pod's whose network namespace has that id here, if it's known.
    pub(super) fn with_pod(mut self, namespace: Option<i32>) -> Self {
        self.leg = Leg::new(namespace);
        self
    }

    /// For who speaks a protocol that says itself where it ends.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.finished();
        self.stream
    }

    /// Waits until the other end has said something, and tells how it begins; nothing, if nothing will come.
    pub(crate) async fn peek(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut said = vec![0; most];
        let length = self.stream.peek(&mut said).await?;
        said.truncate(length);
        Ok(said)
    }

    /// What has come already, up to [`AHEAD`]; nothing, at the end.
    ///
    /// # Errors
    /// As a read.
    pub(super) fn read_ahead(&self) -> io::Result<Vec<u8>> {
        let mut ahead = Vec::with_capacity(AHEAD);
        match recv(
            &self.stream,
            spare_capacity(&mut ahead),
            RecvFlags::DONTWAIT,
        ) {
            Ok(_) | Err(Errno::AGAIN) => Ok(ahead),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what comes before everything else.
    ///
    /// # Errors
    /// As a write.
    pub(crate) async fn send(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(data) {
                Ok(written) => data = &data[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn finished(&self) {
        let _ = SockRef::from(&self.stream).set_linger(None);
    }
}

/// Waits for a connection's failure while nobody reads from it or writes to it.
async fn failure(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => match stream.take_error() {
            Ok(Some(error)) | Err(error) => error,
            // A read or write of ours has taken it.
            Ok(None) => io::ErrorKind::ConnectionReset.into(),
        },
        Err(error) => error,
    }
}

/// As [`failure`]; never, without a connection.
async fn failure_of(stream: Option<&TcpStream>) -> io::Error {
    match stream {
        Some(stream) => failure(stream).await,
        None => std::future::pending().await,
    }
}

/// Half-close. A connection that is gone by now says so to whoever reads from it.
fn shut_down(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::ConnectionReset.into())
        }
        result => result,
    }
}

/// The next buffer's size: larger while reads fill it.
fn next_size(size: usize, read: usize) -> usize {
    if read < size {
        size
    } else {
        (size * 4).min(MAX_BUFFER)
    }
}

#[cfg(test)]
mod tests;
