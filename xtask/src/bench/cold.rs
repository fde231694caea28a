//! `connect-cold`: the first connection to each of many servers.
//!
//! The client's proxy is restarted first, which leaves it no tunnel, no pooled connection and no
//! TLS session; a request to another server then makes sure that it is ready and has the client's
//! certificate. So what is measured is set-up between two workloads that haven't met.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    measurement::{Metric, Placement, Unit},
    outcome::Figure,
    probe,
    stage::{PORT, Stage},
};

/// As many as scenario `connect` has.
const CLIENTS: usize = 8;

/// Connects to each of the stage's cold servers once.
///
/// # Errors
/// A connection failed, or the proxy doesn't come back.
pub(super) fn run(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    stage.data_plane.restart(&stage.client)?;
    stage.await_answer(Placement::CrossNode)?;
    let servers: Vec<_> = stage
        .cold
        .iter()
        .map(|server| server.pod.at(PORT))
        .collect();
    let elapsed = connect_to_each(stage, &servers)?;
    let count = f64::from(u32::try_from(servers.len())?);
    Ok(vec![Figure {
        metric: Metric::Requests,
        unit: Unit::PerSecond,
        value: count / elapsed.as_secs_f64(),
    }])
}

fn connect_to_each(stage: &Stage<'_>, servers: &[SocketAddr]) -> Result<Duration> {
    let next = AtomicUsize::new(0);
    let ready = Barrier::new(CLIENTS + 1);
    let client = || -> io::Result<()> {
        while let Some(server) = servers.get(next.fetch_add(1, Ordering::Relaxed)) {
            probe::ask_once(*server)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    stage.client.in_namespace(|| {
                        ready.wait();
                        client()
                    })
                })
            })
            .collect();
        ready.wait();
        let begun = Instant::now();
        for client in clients {
            let ended = client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended?.context("a first connection")?;
        }
        Ok(begun.elapsed())
    })
}
