//! Between two tunnels, for a waypoint.

mod end;

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::select;
use tokio_util::sync::CancellationToken;

use self::end::End;
use super::{CopyError, failure_of};
use crate::{proxy::TunnelStream, telemetry::Transfer};

/// Copies between a client's stream and a server's until both directions have ended, or one side
/// fails, or `cancellation`: then both are reset. What was read of either already goes first.
///
/// # Errors
/// [`CopyError`] says how.
pub async fn relay(
    (mut client, client_said): (TunnelStream, Bytes),
    (mut server, server_said): (TunnelStream, Bytes),
    transfer: &Transfer,
    cancellation: CancellationToken,
) -> Result<(), CopyError> {
    let ended = [&client, &server].map(|stream| {
        let ended = match stream {
            TunnelStream::Direct(stream) => Some(stream.ended()),
            TunnelStream::Multiplexed(_) => None,
        };
        async {
            match ended {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        }
    });
    let [client_ended, server_ended] = ended;
    let result = select! {
        biased;
        () = cancellation.cancelled() => Err(CopyError::Cancelled),
        () = client_ended => Err(CopyError::Cancelled),
        () = server_ended => Err(CopyError::Cancelled),
        result = both_ways(&mut client, &mut server, [client_said, server_said], transfer) => result,
    };
    for stream in [client, server] {
        match (stream, &result) {
            (TunnelStream::Direct(stream), Ok(())) => stream.finish(),
            (TunnelStream::Multiplexed(stream), Err(_)) => stream.reset(),
            // A direct one that is dropped is reset; a shared one has ended both ways.
            _ => {}
        }
    }
    result
}

async fn both_ways(
    client: &mut TunnelStream,
    server: &mut TunnelStream,
    said: [Bytes; 2],
    transfer: &Transfer,
) -> Result<(), CopyError> {
    let (mut client, mut server) = (End::of(client), End::of(server));
    let [mut up, mut down] = said.map(Way::new);
    let sockets = [client.socket(), server.socket()];
    let [mut client_failed, mut server_failed] = sockets.map(|socket| Box::pin(failure_of(socket)));
    poll_fn(|context| {
        let sent = up.poll(context, &mut client, &mut server, |bytes| {
            transfer.add_received(bytes);
        })?;
        let received = down.poll(context, &mut server, &mut client, |bytes| {
            transfer.add_sent(bytes);
        })?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Whoever isn't being read from may fail unseen: then nobody else would tell.
        for (way, end, failed) in [
            (&up, &mut client, &mut client_failed),
            (&down, &mut server, &mut server_failed),
        ] {
            if way.is_blocked() || way.has_ended {
                if let Poll::Ready(error) = end.poll_reset(context) {
                    return Poll::Ready(Err(error));
                }
                if let Poll::Ready(error) = pin!(failed).poll(context) {
                    return Poll::Ready(Err(CopyError::tunnel(error)));
                }
            }
        }
        Poll::Pending
    })
    .await?;
    client.rest();
    server.rest();
    Ok(())
}

/// One direction.
struct Way {
    /// What the receiver hasn't taken yet, and how much it was.
    waiting: Option<(Bytes, usize)>,
    /// Whether that was received before this began, and has been accounted for.
    is_early: bool,
    has_ended: bool,
}

impl Way {
    fn new(said: Bytes) -> Self {
        let length = said.len();
        let waiting = (length > 0).then_some((said, length));
        Self {
            is_early: waiting.is_some(),
            waiting,
            has_ended: false,
        }
    }

    /// Whether it waits for the receiver, and so doesn't read from the sender.
    fn is_blocked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Goes on until the sender has ended and the receiver has taken everything.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut End<'_>,
        to: &mut End<'_>,
        count: impl Fn(u64),
    ) -> Poll<Result<(), CopyError>> {
        loop {
            if let Some((data, length)) = &mut self.waiting {
                if to.poll_send(context, data)?.is_pending() {
                    from.stall();
                    return Poll::Pending;
                }
                count(*length as u64);
                if !std::mem::take(&mut self.is_early) {
                    from.release(*length);
                }
                self.waiting = None;
            }
            if self.has_ended {
                return to.poll_finish(context);
            }
            match ready!(from.poll_receive(context))? {
                Some(data) => {
                    let length = data.len();
                    self.waiting = Some((data, length));
                }
                None => self.has_ended = true,
            }
        }
    }
}
