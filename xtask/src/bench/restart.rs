//! `proxy-restart`: how many open connections the restart of the client's proxy ends.

use std::{
    io,
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context, Result};

use super::{
    measurement::{Metric, Placement, Unit},
    outcome::Figure,
    probe::Connection,
    stage::Stage,
};

/// Connections that are open when the proxy is restarted.
const CONNECTIONS: usize = 50;

/// Opens connections, makes a request in each, restarts the proxy, and makes another in each.
///
/// # Errors
/// A connection failed before the restart, or the proxy doesn't work after it.
pub(super) fn run(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let server = stage.address(Placement::CrossNode);
    let open = || -> io::Result<Vec<Connection>> {
        (0..CONNECTIONS)
            .map(|_| {
                let mut connection = Connection::open(server)?;
                connection.ask()?;
                Ok(connection)
            })
            .collect()
    };
    let mut connections = stage
        .client
        .in_namespace(open)?
        .context("before the restart")?;
    stage.data_plane.restart(&stage.client)?;
    // All at once: one that hangs must not keep the others waiting.
    let dropped = thread::scope(|scope| {
        let asked: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(|| connection.ask()))
            .collect();
        let answered = |thread: ScopedJoinHandle<'_, _>| matches!(thread.join(), Ok(Ok(())));
        asked
            .into_iter()
            .map(answered)
            .filter(|answered| !answered)
            .count()
    });
    let dropped = u32::try_from(dropped)?;
    stage
        .await_answer(Placement::CrossNode)
        .context("after the restart")?;
    Ok(vec![Figure {
        metric: Metric::Dropped,
        unit: Unit::Connections,
        value: dropped.into(),
    }])
}
