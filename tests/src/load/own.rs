//! `lab-load` as generator.

use std::{net::SocketAddr, time::Duration};

use super::{GRACE, Load, LoadResult, SINK, port_after};
use crate::{Error, Place, Result};

/// Runs it to its end.
pub(super) fn run(
    place: &Place,
    target: SocketAddr,
    load: &Load,
    time: Duration,
) -> Result<LoadResult> {
    let target = match load {
        Load::Bulk { .. } => port_after(target, SINK)?,
        _ => target,
    };
    let output = place
        .command(place.own_program("lab-load")?)
        .args(arguments(target, load, time))
        .deadline(time + time / 5 + GRACE)
        .run()?
        .success()?;
    serde_json::from_str(&output).map_err(|error| Error::malformed("lab-load's result", error))
}

fn arguments(target: SocketAddr, load: &Load, time: Duration) -> Vec<String> {
    let (name, numbers) = match load {
        Load::Bulk { streams } => ("bulk", vec![("--streams", *streams)]),
        Load::RoundTrip { connections } => ("round-trip", vec![("--connections", *connections)]),
        Load::FixedRate {
            requests_per_second,
            connections,
        } => {
            let rate = usize::try_from(*requests_per_second).unwrap_or(usize::MAX);
            let numbers = vec![("--rate", rate), ("--connections", *connections)];
            ("fixed-rate", numbers)
        }
        Load::Connect { clients } => ("connect", vec![("--clients", *clients)]),
    };
    let mut arguments = vec![name.into(), "--connect".into(), target.to_string()];
    arguments.extend(["--time-ms".into(), time.as_millis().max(1).to_string()]);
    for (flag, number) in numbers {
        arguments.extend([flag.into(), number.to_string()]);
    }
    arguments
}
