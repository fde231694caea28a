//! The way from a waypoint to where its clients want to go, in its own name.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_util::either::Either;

use super::{Waypoint, target::Target};
use crate::{
    hbone::{Authority, RequestHeaders, pool::PoolKey},
    proxy::{
        TunnelStream,
        copy::{CopyError, ResetOnDrop, TcpSide, copy_tunnel, relay},
        dial,
        error::Error,
        route::Route,
        tunnel_io::TunnelIo,
    },
    telemetry::Transfer,
};

/// From the client's request to the answer of the destination's agent, a new tunnel included. Less
/// than the client's agent gives it.
const DEADLINE: Duration = Duration::from_secs(15);
/// How much is read at first of a server that speaks before its client does, in bytes.
const GREETING: usize = 4096;

/// A connection to a destination.
pub(super) enum Onward {
    /// To the agent of an enrolled pod.
    Tunnel(Box<TunnelIo>),
    /// To what isn't enrolled, or to a pod of this node.
    Plain(ResetOnDrop),
}

impl Onward {
    /// Opens one.
    ///
    /// # Errors
    /// [`Error::Tunnel`], [`Error::Dial`].
    pub(super) async fn open(
        waypoint: &Waypoint,
        target: &Target,
        headers: &RequestHeaders,
    ) -> Result<Self, Error> {
        let (workload, via) = match &target.route {
            Route::Tunnel { workload, via } => (workload, *via),
            // On this node its agent knows this pod by its interface, and asks for no certificate.
            Route::Local(_) | Route::Waypoint { .. } | Route::Plain(_) => {
                return Ok(Self::Plain(dial::unmarked(target.address).await?));
            }
        };
        let key = PoolKey {
            source: waypoint.identity.clone(),
            destination: workload.identity.clone(),
            uid: workload.uid.clone(),
            address: via,
        };
        let authority = Authority::Address(target.address);
        let deadline = Instant::now() + DEADLINE;
        let tunnels = &waypoint.core.tunnels;
        let idle = tunnels.idle(&key).map(|idle| (idle, &[][..]));
        let opened = tunnels
            .open(&key, &authority, headers, idle, deadline)
            .await;
        Ok(Self::Tunnel(Box::new(TunnelIo::new(opened?))))
    }

    /// Waits until the server says something, and tells how that begins; nothing, if it ends. What it says
    /// isn't lost, also if this is given up.
    ///
    /// # Errors
    /// If the connection fails.
    pub(super) async fn speaks(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Tunnel(io) => {
                let mut said = Vec::with_capacity(GREETING);
                // Reads all or nothing until it is ready.
                io.read_buf(&mut said).await?;
                io.unread(said.clone().into());
                Ok(said)
            }
            Self::Plain(server) => server.peek(GREETING).await,
        }
    }

    /// Copies between it and a client, of whom something was read already.
    ///
    /// # Errors
    /// [`CopyError`].
    pub(super) async fn copy(
        self,
        (client, said): (TunnelStream, Bytes),
        transfer: &Arc<Transfer>,
        cancellation: tokio_util::sync::CancellationToken,
    ) -> Result<(), CopyError> {
        match self {
            Self::Tunnel(server) => {
                let server = server.into_stream().ok_or(CopyError::TunnelCut)?;
                relay((client, said), server, transfer, cancellation).await
            }
            Self::Plain(server) => {
                let sent = tokio::select! {
                    () = cancellation.cancelled() => Err(CopyError::Cancelled),
                    sent = server.send(&said) => sent.map_err(CopyError::server),
                };
                sent?;
                transfer.add_received(said.len() as u64);
                copy_tunnel(server, TcpSide::Server, client, transfer, cancellation).await
            }
        }
    }

    /// Ends it before anything was said on it, so that its server sees an end and no failure.
    pub(super) async fn end(self) {
        // One that is gone by now has ended as well.
        let _ = self.into_io().shutdown().await;
    }

    /// For who speaks a protocol on it.
    pub(super) fn into_io(self) -> Either<Box<TunnelIo>, TcpStream> {
        match self {
            Self::Tunnel(io) => Either::Left(io),
            Self::Plain(stream) => Either::Right(stream.into_stream()),
        }
    }
}
