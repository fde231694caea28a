//! A tunnel with the one connection that is in it.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use libc::c_int;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, sync::oneshot};

use super::{
    frame::{Frame, FrameError, Kind},
    pool::Lease,
};
use crate::{
    channel::{Channel, Inbox, Next, RecordError},
    hbone::Baggage,
};

/// Why a tunnel can't be used on.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The connection failed, or the peer is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The peer breaks the protocol.
    #[error("the other agent sent {0}")]
    Frame(#[from] FrameError),
}

/// Where a tunnel goes when its connection has ended well.
#[derive(Debug)]
pub enum Home {
    /// To the pool it was taken from.
    Pool(Lease),
    /// To the task that serves it.
    Server(oneshot::Sender<Box<Channel<TcpStream>>>),
}

/// An open connection. Dropped before both its directions have ended, the tunnel is reset, also if
/// it is the kernel that closes it, after the agent was killed.
#[derive(Debug)]
pub struct DirectStream {
    /// The tunnel.
    pub channel: Box<Channel<TcpStream>>,
    home: Home,
    /// What the workload at the other end calls itself. Not evidence.
    pub peer: Box<Baggage>,
    /// The other agent hears that the connection is there with what is sent next, or by [`tell`].
    pub holds_answer: bool,
}

/// When a client's agent hears that its connection is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// At once.
    Alone,
    /// With what the server says first, if the client has said something already, and so its agent waits for no
    /// more than that; see [`DirectStream::holds_answer`].
    WithData,
}

/// Sends what waits for more to go with it.
pub fn tell(tunnel: &TcpStream) {
    // It fails only on what isn't a socket.
    let _ = tunnel.set_nodelay(true);
}

impl DirectStream {
    pub(crate) fn new(channel: Box<Channel<TcpStream>>, home: Home, peer: Box<Baggage>) -> Self {
        set_reset_on_close(&channel.io, true);
        Self {
            channel,
            home,
            peer,
            holds_answer: false,
        }
    }

    /// Completes when the tunnel must not be used any longer, on the side that opened it.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended = match &self.home {
            Home::Pool(lease) => Some(lease.ended()),
            Home::Server(_) => None,
        };
        async {
            match ended {
                Some(ended) => ended.await,
                None => pending().await,
            }
        }
    }

    /// Both directions have ended: the tunnel is free for the next connection.
    pub fn finish(self) {
        // The last bytes may still be on their way: from here on a close is an orderly one.
        set_reset_on_close(&self.channel.io, false);
        match self.home {
            Home::Pool(lease) => lease.give_back(self.channel),
            // A server that is gone has no use for it.
            Home::Server(server) => drop(server.send(self.channel)),
        }
    }
}

fn set_reset_on_close(stream: &TcpStream, reset: bool) {
    // It fails only on what isn't a socket.
    let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
}

/// Sends a frame.
pub(super) async fn send(
    channel: &mut Channel<TcpStream>,
    frame: &Frame,
) -> Result<(), TunnelError> {
    send_with(channel, frame, &[], 0).await
}

/// Sends a frame, and data behind it if there are some: no more than a record holds. With flags of send(2).
pub(super) async fn send_with(
    channel: &mut Channel<TcpStream>,
    frame: &Frame,
    data: &[u8],
    flags: c_int,
) -> Result<(), TunnelError> {
    let mut sealed = Vec::new();
    channel.keys.seal_behind(&mut sealed, &[&frame.encode()]);
    if !data.is_empty() {
        let content = [&[Kind::Data as u8], data];
        channel.keys.seal_behind(&mut sealed, &content);
    }
    let (io, mut rest) = (&channel.io, &sealed[..]);
    while !rest.is_empty() {
        let send = || SockRef::from(io).send_with_flags(rest, libc::MSG_NOSIGNAL | flags);
        let sent = io.async_io(Interest::WRITABLE, send).await?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Waits for one frame. `None` when the peer has closed the tunnel. Nothing is lost if nobody waits any longer.
pub(super) async fn receive(
    channel: &mut Channel<TcpStream>,
) -> Result<Option<Frame>, TunnelError> {
    let mut inbox = Inbox::new(std::mem::take(&mut channel.received));
    let frame = loop {
        match inbox.open(&mut channel.keys)? {
            Next::Data(content) => break Frame::decode(inbox.content(content)),
            Next::Closed => return Ok(None),
            Next::Missing => {}
        }
        // An idle tunnel holds no buffer.
        channel.received = inbox.into_received();
        channel.io.readable().await?;
        inbox = Inbox::new(std::mem::take(&mut channel.received));
        match channel.io.try_read(inbox.space()) {
            Ok(0) => return Ok(None),
            Ok(bytes) => inbox.received(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    };
    channel.received = inbox.into_received();
    Ok(Some(frame?))
}
