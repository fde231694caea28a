//! The client's side: asks for a connection.

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    frame::Frame,
    stream::{TunnelError, receive, send, send_with},
};
use crate::{
    channel::Channel,
    hbone::{Authority, Baggage, RequestHeaders, client::OpenError},
};

/// Asks the server's agent for a connection, and sends `ahead`, the first bytes of the client, without waiting for
/// the answer: at most what a record holds. The tunnel can be used on after a refusal too.
///
/// # Errors
/// [`OpenError`], as HBONE would have told it; `TunnelClosed` alone may be tried again.
pub async fn open(
    channel: &mut Channel<TcpStream>,
    authority: &Authority,
    headers: &RequestHeaders,
    ahead: &[u8],
    deadline: Instant,
) -> Result<Box<Baggage>, OpenError> {
    let request = Frame::Open(authority.clone(), Box::new(headers.clone()));
    let answer = async {
        send_with(channel, &request, ahead, 0).await?;
        let mut answer = receive(channel).await?;
        if let Some(Frame::Closing) = answer {
            // Said before it heard the question, which it still answers.
            answer = receive(channel).await?;
        }
        if let Some(Frame::Refuse(_)) = answer
            && !ahead.is_empty()
        {
            // Nothing more comes of what the other end has passed over.
            send(channel, &Frame::End).await?;
        }
        Ok(answer)
    };
    match timeout_at(deadline, answer).await {
        Err(_) => Err(OpenError::Timeout),
        Ok(Ok(Some(Frame::Accept(baggage)))) => Ok(baggage),
        Ok(Ok(Some(Frame::Refuse(status)))) => Err(OpenError::from_status(status)),
        Ok(
            Ok(Some(Frame::Open(..) | Frame::End | Frame::Closing) | None)
            | Err(TunnelError::Io(_)),
        ) => Err(OpenError::TunnelClosed(None)),
        Ok(Err(error @ (TunnelError::Record(_) | TunnelError::Frame(_)))) => {
            Err(OpenError::Broken(error.to_string()))
        }
    }
}
