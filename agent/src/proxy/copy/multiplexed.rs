//! Between a socket of this node and a stream of a tunnel that others share.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Poll,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{select, sync::Notify, task::coop};
use tokio_util::sync::CancellationToken;

use super::{CopyError, MIN_BUFFER, ResetOnDrop, TcpSide, failure, next_size, shut_down};
use crate::{
    hbone::{
        HboneStream,
        stream::{ReceiveHalf, SendHalf},
    },
    telemetry::Transfer,
};

/// Copies between a socket and a stream until both directions have ended, or one side fails, or
/// `cancellation`: then both are reset.
///
/// # Errors
/// [`CopyError`] says which side failed and how.
pub(super) async fn copy_multiplexed(
    tcp: ResetOnDrop,
    side: TcpSide,
    mut stream: HboneStream,
    transfer: &Transfer,
    cancellation: CancellationToken,
) -> Result<(), CopyError> {
    let result = select! {
        biased;
        () = cancellation.cancelled() => Err(CopyError::Cancelled),
        result = both_ways(&tcp, side, &mut stream, transfer) => result,
    };
    match result {
        Ok(()) => tcp.finished(),
        Err(_) => stream.reset(),
    }
    result
}

async fn both_ways(
    tcp: &ResetOnDrop,
    side: TcpSide,
    stream: &mut HboneStream,
    transfer: &Transfer,
) -> Result<(), CopyError> {
    let count_up = |bytes| side.count_up(transfer, bytes);
    let count_down = |bytes| side.count_down(transfer, bytes);
    let (send, receive) = stream.halves();
    let (uploaded, stalled) = (Notify::new(), AtomicBool::new(false));
    let mut upload = pin!(upload(tcp, side, send, count_up, &uploaded));
    let mut download = pin!(download(tcp, side, receive, count_down, &stalled));

    let failed = select! {
        failed = &mut upload => failed,
        result = &mut download => {
            result?;
            return select! {
                failed = upload => Err(failed),
                () = uploaded.notified() => Ok(()),
            };
        }
    };
    // What the peer sent before its reset still goes on, as far as the socket takes it: without a
    // tunnel the application could have read it too.
    if matches!(failed, CopyError::TunnelReset(_)) {
        let stalled = poll_fn(|_| match stalled.load(Relaxed) {
            // `download` is polled first and in the same task, so its change is always seen.
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        select! {
            biased;
            _ = download => {}
            () = stalled => {}
        }
    }
    Err(failed)
}

/// Sends what the socket says. When that has ended, says so to `uploaded` and stays, to hear of a
/// failure of either side.
async fn upload(
    tcp: &ResetOnDrop,
    side: TcpSide,
    send: &mut SendHalf,
    count: impl Fn(usize),
    uploaded: &Notify,
) -> CopyError {
    if let Err(error) = upload_all(tcp, side, send, count).await {
        return error;
    }
    uploaded.notify_one();
    select! {
        error = failure(&tcp.stream) => side.error(error),
        error = send.reset_by_peer() => error.into(),
    }
}

async fn upload_all(
    from: &ResetOnDrop,
    side: TcpSide,
    send: &mut SendHalf,
    count: impl Fn(usize),
) -> Result<(), CopyError> {
    let tcp = &from.stream;
    let mut size = MIN_BUFFER;
    loop {
        select! {
            ready = tcp.readable() => ready.map_err(|error| side.error(error))?,
            error = send.reset_by_peer() => return Err(error.into()),
        }
        // The buffer lives only for as long as there is something to read.
        let mut buffer = BytesMut::new();
        loop {
            coop::consume_budget().await;
            buffer.reserve(size);
            match tcp.try_read_buf(&mut buffer) {
                Ok(0) => return Ok(send.finish()?),
                Ok(read) => {
                    from.leg.has_read(tcp, read);
                    let data = take(&mut buffer);
                    // Nobody reads the socket now, so watch it.
                    select! {
                        sent = send.send(data) => sent?,
                        error = failure(tcp) => return Err(side.error(error)),
                    }
                    count(read);
                    size = next_size(size, read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(side.error(error)),
            }
        }
        size = MIN_BUFFER;
    }
}

/// The bytes read, without copying them, unless they are so few that they would keep a large
/// buffer alive for as long as they wait to be sent.
fn take(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() * 4 >= buffer.capacity() {
        return buffer.split().freeze();
    }
    let data = Bytes::copy_from_slice(buffer);
    buffer.clear();
    data
}

/// Writes to the socket what the tunnel says, and lets the sender go on by as much.
async fn download(
    to: &ResetOnDrop,
    side: TcpSide,
    receive: &mut ReceiveHalf,
    count: impl Fn(usize),
    stalled: &AtomicBool,
) -> Result<(), CopyError> {
    let tcp = &to.stream;
    while let Some(mut data) = receive.data().await? {
        while !data.is_empty() {
            coop::consume_budget().await;
            match tcp.try_write(&data) {
                Ok(written) => {
                    to.leg.has_written(tcp, written);
                    count(written);
                    data.advance(written);
                    receive.release(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _stall = receive.stall();
                    stalled.store(true, Relaxed);
                    tcp.writable().await.map_err(|error| side.error(error))?;
                    stalled.store(false, Relaxed);
                }
                Err(error) => return Err(side.error(error)),
            }
        }
    }
    shut_down(tcp).map_err(|error| side.error(error))
}
