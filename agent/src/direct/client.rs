//! The client's side: asks for a connection.

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    frame::Frame,
    stream::{TunnelError, receive, send},
};
use crate::{
    channel::Channel,
    hbone::{Authority, Baggage, RequestHeaders, client::OpenError},
};

/// Asks the server's agent for a connection. The tunnel can be used on after a refusal too.
///
/// # Errors
/// [`OpenError`], as HBONE would have told it; `TunnelClosed` alone may be tried again.
pub async fn open(
    channel: &mut Channel<TcpStream>,
    authority: &Authority,
    headers: &RequestHeaders,
    deadline: Instant,
) -> Result<Box<Baggage>, OpenError> {
    let request = Frame::Open(authority.clone(), Box::new(headers.clone()));
    let answer = async {
        send(channel, &request).await?;
        receive(channel).await
    };
    match timeout_at(deadline, answer).await {
        Err(_) => Err(OpenError::Timeout),
        Ok(Ok(Some(Frame::Accept(baggage)))) => Ok(baggage),
        Ok(Ok(Some(Frame::Refuse(status)))) => Err(OpenError::from_status(status)),
        Ok(Ok(Some(Frame::Open(..) | Frame::End) | None) | Err(TunnelError::Io(_))) => {
            Err(OpenError::TunnelClosed(None))
        }
        Ok(Err(error @ (TunnelError::Record(_) | TunnelError::Frame(_)))) => {
            Err(OpenError::Broken(error.to_string()))
        }
    }
}
