//! The server's side: one connection after the other.

use std::future::Future;

use http::StatusCode;
use tokio::{net::TcpStream, select, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    frame::Frame,
    stream::{DirectStream, Home, TunnelError, receive, send},
};
use crate::{
    channel::Channel,
    hbone::{Authority, Baggage, RequestHeaders},
};

/// A connection that the client's agent asks for. Dropped without an answer, its tunnel is reset.
#[derive(Debug)]
pub struct DirectRequest {
    /// Where the client wants to go.
    pub authority: Authority,
    /// What the client's agent says about the client. Not evidence.
    pub headers: Box<RequestHeaders>,
    channel: Box<Channel<TcpStream>>,
    home: oneshot::Sender<Box<Channel<TcpStream>>>,
}

impl DirectRequest {
    /// Says that the connection is there. `server` is what to say about the workload.
    ///
    /// # Errors
    /// When the tunnel is gone.
    pub async fn accept(mut self, server: Baggage) -> Result<DirectStream, TunnelError> {
        send(&mut self.channel, &Frame::Accept(Box::new(server))).await?;
        let peer = Box::new(self.headers.baggage);
        Ok(DirectStream::new(
            self.channel,
            Home::Server(self.home),
            peer,
        ))
    }

    /// Says why not, by HBONE's status: 400 (not for this node), 401 (denied), 503 (no upstream).
    /// The reason goes to our log only.
    pub async fn refuse(mut self, status: StatusCode, reason: &str) {
        debug!(%status, reason, "direct connection refused");
        if send(&mut self.channel, &Frame::Refuse(status))
            .await
            .is_ok()
        {
            // Whoever served the tunnel may be gone.
            let _ = self.home.send(self.channel);
        }
    }
}

/// Serves a tunnel until it closes, or a connection in it ends badly. When `drain` is cancelled, it
/// closes as soon as no connection is in it.
///
/// # Errors
/// The tunnel failed while there was no connection in it.
pub async fn serve<Done: Future<Output = ()>>(
    mut channel: Box<Channel<TcpStream>>,
    handler: impl Fn(DirectRequest) -> Done,
    drain: CancellationToken,
) -> Result<(), TunnelError> {
    loop {
        let frame = select! {
            biased;
            frame = receive(&mut channel) => frame?,
            () = drain.cancelled() => return Ok(()),
        };
        let (authority, headers) = match frame {
            Some(Frame::Open(authority, headers)) => (authority, headers),
            Some(_) => return Err(super::frame::FrameError::OutOfPlace.into()),
            None => return Ok(()),
        };
        let (home, mut back) = oneshot::channel();
        handler(DirectRequest {
            authority,
            headers,
            channel,
            home,
        })
        .await;
        match back.try_recv() {
            Ok(returned) => channel = returned,
            // Its connection ended badly; the log has said so.
            Err(_) => return Ok(()),
        }
    }
}
