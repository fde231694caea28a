//! All wiring: one file a role, in the order in which things start.

pub(crate) mod busy_poll;
mod confine;
pub mod control;
mod descriptors;
mod memory;
pub mod node;
mod views;
pub mod waypoint;

use std::{io, net::SocketAddr};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Listens, or says which option names the address.
async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; {option} chooses another"))
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
