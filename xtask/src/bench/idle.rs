//! `idle-N`: memory of what reads HTTP, with N keep-alive connections that are idle.

use std::{thread, time::Duration};

use anyhow::Result;
use lab::IdleConnections;

use super::{
    data_plane::DataPlane,
    measurement::{Metric, Placement, Unit},
    outcome::Figure,
    processes::{Memory, mebibytes},
    stage::Stage,
    traffic::Shown,
};

/// How long proxies may take to come to rest. An agent looks every 5 s whether it can give memory back; a waypoint
/// every 2 s, and twice. What a sidecar does after its last request is over by then, too.
const SETTLE: Duration = Duration::from_secs(6);

/// Opens connections with one request each, and reads the memory of the processes that read HTTP
/// while they are open.
///
/// # Errors
/// A connection fails, or a proxy has ended.
pub(super) fn run(stage: &mut Stage<'_>, connections: u16) -> Result<Shown> {
    let server = stage.address(Placement::CrossNode);
    let held = (connections > 0)
        .then(|| IdleConnections::open(&stage.client, server, connections))
        .transpose()?;
    thread::sleep(SETTLE);
    let of_http = Memory::of(&stage.data_plane.http_pids())?;
    let all = Memory::of(&stage.data_plane.pids(stage.lab))?;
    drop(held);
    Ok(Shown {
        figures: vec![Figure {
            metric: Metric::Resident,
            unit: Unit::Mebibytes,
            value: mebibytes(of_http.resident),
        }],
        note: matches!(stage.data_plane, DataPlane::Waypoint(..)).then(|| {
            format!(
                "idle-{connections}: of ambit+waypoint it is the waypoint alone; with both nodes' \
                 agents, which other pods share, it is {:.1} MiB. Of a sidecar it is both ends' \
                 proxies",
                mebibytes(all.resident)
            )
        }),
        ..Shown::default()
    })
}
