//! Between two sockets of this node.

use std::io;

use tokio::{net::TcpStream, select, task::coop};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Transfer;

use super::{CopyError, MIN_BUFFER, ResetOnDrop, failure, next_size, shut_down};

/// Copies between a client and a server until both directions have ended, or one side fails, or
/// `cancellation`: then both are reset.
///
/// # Errors
/// [`CopyError`] says which side failed and how.
pub async fn copy_tcp(
    client: impl Into<ResetOnDrop>,
    server: impl Into<ResetOnDrop>,
    transfer: &Transfer,
    cancellation: CancellationToken,
) -> Result<(), CopyError> {
    let (client, server): (ResetOnDrop, ResetOnDrop) = (client.into(), server.into());
    let result = select! {
        biased;
        () = cancellation.cancelled() => Err(CopyError::Cancelled),
        result = both_ways(&client, &server, transfer) => result,
    };
    if result.is_ok() {
        client.finished();
        server.finished();
    }
    result
}

async fn both_ways(
    client: &ResetOnDrop,
    server: &ResetOnDrop,
    transfer: &Transfer,
) -> Result<(), CopyError> {
    let to_server = one_way(client, server, |bytes| transfer.add_received(bytes));
    let to_client = one_way(server, client, |bytes| transfer.add_sent(bytes));
    let (to_server, to_client) = (
        async {
            to_server
                .await
                .map_err(|e| e.told(CopyError::client, CopyError::server))
        },
        async {
            to_client
                .await
                .map_err(|e| e.told(CopyError::server, CopyError::client))
        },
    );
    tokio::pin!(to_server, to_client);
    // The direction that has ended no longer reads its source, which may still fail.
    select! {
        result = &mut to_server => {
            result?;
            select! {
                result = to_client => result,
                error = failure(&client.stream) => Err(CopyError::client(error)),
            }
        }
        result = &mut to_client => {
            result?;
            select! {
                result = to_server => result,
                error = failure(&server.stream) => Err(CopyError::server(error)),
            }
        }
    }
}

enum Failed {
    Source(io::Error),
    Sink(io::Error),
}

impl Failed {
    fn told(
        self,
        source: impl FnOnce(io::Error) -> CopyError,
        sink: impl FnOnce(io::Error) -> CopyError,
    ) -> CopyError {
        match self {
            Self::Source(error) => source(error),
            Self::Sink(error) => sink(error),
        }
    }
}

/// Copies until the source has ended, and half-closes the sink.
async fn one_way(from: &ResetOnDrop, to: &ResetOnDrop, count: impl Fn(u64)) -> Result<(), Failed> {
    let (source, sink) = (&from.stream, &to.stream);
    loop {
        source.readable().await.map_err(Failed::Source)?;
        // The buffer lives only for as long as there is something to read.
        let mut buffer = vec![0; MIN_BUFFER];
        loop {
            coop::consume_budget().await;
            match source.try_read(&mut buffer) {
                Ok(0) => return shut_down(sink).map_err(Failed::Sink),
                Ok(read) => {
                    from.leg.has_read(source, read);
                    write_all(source, to, &buffer[..read], &count).await?;
                    let size = next_size(buffer.len(), read);
                    if size > buffer.len() {
                        buffer = vec![0; size];
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Failed::Source(error)),
            }
        }
    }
}

async fn write_all(
    source: &TcpStream,
    to: &ResetOnDrop,
    mut data: &[u8],
    count: impl Fn(u64),
) -> Result<(), Failed> {
    let sink = &to.stream;
    while !data.is_empty() {
        match sink.try_write(data) {
            Ok(written) => {
                to.leg.has_written(sink, written);
                count(written as u64);
                data = &data[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nobody reads the source now; if it is reset, the sink must hear of it even if
                // it never reads again.
                select! {
                    ready = sink.writable() => ready.map_err(Failed::Sink)?,
                    error = failure(source) => return Err(Failed::Source(error)),
                }
            }
            Err(error) => return Err(Failed::Sink(error)),
        }
    }
    Ok(())
}
