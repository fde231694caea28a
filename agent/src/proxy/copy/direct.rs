//! Between a socket of this node and a direct tunnel.
//!
//! Bytes are read from the application into the places that they are sealed at, 16 records at a
//! time, and from the tunnel into the place that they are opened at and written from. Either way
//! one read and one write is all that happens to them besides encryption.

mod down;
mod path;
mod up;

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{io::Interest, net::TcpStream, select, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{down::Down, path::Measure, up::Up};
use super::{CopyError, ResetOnDrop, TcpSide, failure};
use crate::{
    channel::Channel,
    direct::{DirectStream, tell},
    telemetry::Transfer,
};

/// How long the other agent waits to hear that a connection is there for what the server says first.
const PATIENCE: Duration = Duration::from_millis(1);

/// Copies between a socket and a direct tunnel until both directions have ended, or one side fails,
/// or `cancellation`: then both are reset.
///
/// # Errors
/// [`CopyError`] says which side failed and how.
pub(super) async fn copy_direct(
    tcp: ResetOnDrop,
    side: TcpSide,
    mut stream: DirectStream,
    transfer: &Transfer,
    cancellation: CancellationToken,
) -> Result<(), CopyError> {
    let measure = Measure::begin(&stream.channel.io);
    let result = select! {
        biased;
        () = cancellation.cancelled() => Err(CopyError::Cancelled),
        () = stream.ended() => Err(CopyError::Cancelled),
        result = both_ways(&tcp, side, &mut stream, transfer) => result,
    };
    measure.end(&stream.channel.io, transfer);
    if result.is_ok() {
        tcp.finished();
        stream.finish();
    }
    result
}

async fn both_ways(
    tcp: &ResetOnDrop,
    side: TcpSide,
    stream: &mut DirectStream,
    transfer: &Transfer,
) -> Result<(), CopyError> {
    let mut late = stream.holds_answer.then(|| Box::pin(sleep(PATIENCE)));
    let Channel {
        io: tunnel,
        keys,
        received,
    } = &mut *stream.channel;
    let tunnel = &*tunnel;
    let mut up = Up::new(tcp, tunnel, side, transfer);
    let mut down = Down::new(tcp, tunnel, side, transfer, std::mem::take(received));
    let mut tcp_failed = pin!(failure(&tcp.stream));
    let mut tunnel_failed = pin!(failure(tunnel));
    poll_fn(|context| {
        let uploaded = up.poll(context, keys)?;
        // The answer has gone with what was sent, or goes without.
        late.take_if(|_| up.has_sent());
        late.take_if(|late| late.as_mut().poll(context).is_ready())
            .inspect(|_| tell(tunnel));
        let downloaded = down.poll(context, keys)?;
        if uploaded.is_ready() && downloaded.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Whoever isn't being read from may fail unseen: then nobody else would tell.
        if (up.is_blocked() || uploaded.is_ready())
            && let Poll::Ready(error) = tcp_failed.as_mut().poll(context)
        {
            return Poll::Ready(Err(side.error(error)));
        }
        if (down.is_blocked() || downloaded.is_ready())
            && let Poll::Ready(error) = tunnel_failed.as_mut().poll(context)
        {
            return Poll::Ready(Err(CopyError::tunnel(error)));
        }
        Poll::Pending
    })
    .await?;
    *received = down.into_received();
    Ok(())
}

/// Reads once. If less came than there was room for, there is no more for now: to be told so by the
/// kernel would cost another call.
fn read_some(
    stream: &TcpStream,
    room: usize,
    read: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut got = None;
    let result = stream.try_io(Interest::READABLE, || {
        let bytes = read()?;
        got = Some(bytes);
        if bytes < room {
            // Has the runtime wait for the next event.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (got, result) {
        (Some(bytes), _) => Ok(bytes),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}
