//! The server's side: one connection after the other.

use std::{future::Future, time::Duration};

use http::StatusCode;
use tokio::{net::TcpStream, select, sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    frame::{Frame, FrameError},
    stream::{Answer, DirectStream, Home, TunnelError, receive, send, send_with},
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
    pub async fn accept(
        mut self,
        server: Baggage,
        answer: Answer,
    ) -> Result<DirectStream, TunnelError> {
        let accepted = Frame::Accept(Box::new(server));
        let holds_answer = answer == Answer::WithData && !self.channel.received.is_empty();
        let flags = if holds_answer { libc::MSG_MORE } else { 0 };
        send_with(&mut self.channel, &accepted, &[], flags).await?;
        let peer = Box::new(self.headers.baggage);
        let mut stream = DirectStream::new(self.channel, Home::Server(self.home), peer);
        stream.holds_answer = holds_answer;
        Ok(stream)
    }

    /// Says why not, by HBONE's status: 400 (not for this node), 401 (denied), 503 (no upstream).
    /// The reason goes to our log only.
    pub async fn refuse(mut self, status: StatusCode, reason: &str) {
        debug!(%status, reason, "direct connection refused");
        let refused = Frame::Refuse(status);
        if send(&mut self.channel, &refused).await.is_ok() {
            // Whoever served the tunnel may be gone.
            let _ = self.home.send(self.channel);
        }
    }
}

/// For how long a tunnel that is to close takes what was sent before the client could know. More than most round
/// trips between nodes.
const CROSSING: Duration = Duration::from_millis(250);

/// Serves a tunnel until it closes, or a connection in it ends badly. When `drain` is cancelled, it says that it
/// closes as soon as no connection is in it, and does so after one more that was asked for meanwhile, if any: its client
/// can't ask anew once bytes were sent with the question.
///
/// # Errors
/// The tunnel failed while there was no connection in it.
pub async fn serve<Done: Future<Output = ()>>(
    mut channel: Box<Channel<TcpStream>>,
    handler: impl Fn(DirectRequest) -> Done,
    drain: CancellationToken,
) -> Result<(), TunnelError> {
    let mut is_last = false;
    while !is_last {
        let asked = select! {
            biased;
            asked = next(&mut channel) => asked?,
            () = drain.cancelled() => {
                is_last = true;
                send(&mut channel, &Frame::Closing).await?;
                match timeout(CROSSING, next(&mut channel)).await {
                    Ok(asked) => asked?,
                    Err(_) => None,
                }
            }
        };
        let Some((authority, headers)) = asked else {
            return Ok(());
        };
        let (home, back) = oneshot::channel();
        handler(DirectRequest {
            authority,
            headers,
            channel,
            home,
        })
        .await;
        // Who has ended first may still wait for the client's end.
        match back.await {
            Ok(returned) => channel = returned,
            // Its connection ended badly; the log has said so.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// What the client asks for next; nothing, if it has closed.
async fn next(
    channel: &mut Channel<TcpStream>,
) -> Result<Option<(Authority, Box<RequestHeaders>)>, TunnelError> {
    loop {
        match receive(channel).await {
            Ok(Some(Frame::Open(authority, headers))) => return Ok(Some((authority, headers))),
            // Sent with a question, before the client could know that it would be refused.
            Ok(Some(Frame::End)) | Err(TunnelError::Frame(FrameError::OutOfPlace)) => {}
            Ok(Some(Frame::Accept(_) | Frame::Refuse(_) | Frame::Closing)) => {
                return Err(FrameError::OutOfPlace.into());
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
