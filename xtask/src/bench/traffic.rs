//! Scenarios that the load generator does: latency, requests, bytes, connections, and their CPU.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Generator, Load, LoadResult};

use super::{
    cpu::{self, Clock, Used},
    measurement::{Metric, Placement, Unit},
    outcome::Figure,
    stage::Stage,
};

/// A larger share of failures makes a figure that of another load.
const MAX_FAILURES: f64 = 0.001;
/// Below this share of the arrivals that were asked for, a mode doesn't sustain the rate.
const MIN_SUSTAINED: f64 = 0.97;
/// A quantile is read only where at least this many requests lie beyond it: one alone is whatever
/// happened to be the worst moment of a round.
const BEYOND: f64 = 2.0;
/// What a reader must know then.
pub(super) const TOO_FEW: &str = "a quantile is left out of a round that has fewer than two \
                                  requests beyond it: run longer rounds to see it";
/// Units in reports are decimal, as those of networks are.
const BYTES_PER_GIGABYTE: f64 = 1e9;

/// What a step showed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) figures: Vec<Figure>,
    /// Quantiles and latencies in us, rising. Empty where there is nothing to draw.
    pub(super) curve: Vec<(f64, f64)>,
    /// Why the figures aren't those of the load.
    pub(super) unsustained: Option<String>,
    /// What a reader must know to judge them.
    pub(super) note: Option<String>,
    /// Of loads only.
    pub(super) shares: Option<Shares>,
}

/// Whose the CPU time was, 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// The share of CPU time that the hypervisor gave to others.
    pub(super) stolen: f64,
    /// The share of the machine's CPU time that the lab's own processes had.
    pub(super) in_lab: f64,
}

/// Runs a load once and counts what the machine spent on it meanwhile.
///
/// # Errors
/// It couldn't be run, or what it shows means nothing, for requests failed.
pub(super) fn run(
    stage: &Stage<'_>,
    placement: Placement,
    generator: Generator,
    load: &Load,
    time: Duration,
) -> Result<Shown> {
    let (clock, cgroup) = (Clock::now()?, cpu::of_cgroup(stage.lab.cgroup())?);
    // The generator is a process of its own: this one sleeps until it ends.
    let told = stage.load(placement, generator, load, time)?;
    let used = Clock::now()?.since(&clock);
    let in_lab = cpu::of_cgroup(stage.lab.cgroup())?.saturating_sub(cgroup);
    judge(load, &told)?;
    Ok(Shown {
        unsustained: unsustained(load, &told),
        figures: figures(load, &told, &used),
        curve: curve(&told),
        note: None,
        shares: Some(Shares {
            stolen: used.stolen_share(),
            in_lab: cpu::share(in_lab, used.busy),
        }),
    })
}

/// Whether what a load told can be taken for a measurement.
fn judge(load: &Load, told: &LoadResult) -> Result<()> {
    let (requests, errors) = (float(told.requests), float(told.errors));
    let first_error = told.first_error.as_deref().unwrap_or("no error is known");
    if let Load::Bulk { .. } = load {
        ensure!(told.errors == 0, "{errors} streams failed: {first_error}");
        ensure!(told.bytes > 0, "no byte arrived");
        return Ok(());
    }
    ensure!(told.requests > 0, "no request was answered: {first_error}");
    ensure!(
        errors <= MAX_FAILURES * requests,
        "{errors} of {} requests failed: {first_error}",
        requests + errors
    );
    Ok(())
}

/// Why a rate isn't that which was asked for. That is a finding, and no failure; latencies of
/// another rate would be those of another load.
fn unsustained(load: &Load, told: &LoadResult) -> Option<String> {
    let Load::FixedRate {
        requests_per_second,
        ..
    } = load
    else {
        return None;
    };
    let rate = told.requests_per_second();
    (rate < MIN_SUSTAINED * f64::from(*requests_per_second))
        .then(|| format!("it sustained {rate:.0} requests a second"))
}

fn figures(load: &Load, told: &LoadResult, used: &Used) -> Vec<Figure> {
    let figure = |metric, unit, value| Figure {
        metric,
        unit,
        value,
    };
    if let Load::Bulk { .. } = load {
        let cpu = used.busy.as_secs_f64() * BYTES_PER_GIGABYTE / float(told.all_bytes);
        return vec![
            figure(
                Metric::Throughput,
                Unit::GigabitsPerSecond,
                told.gigabits_per_second(),
            ),
            figure(Metric::Cpu, Unit::SecondsPerGigabyte, cpu),
        ];
    }
    let requests = float(told.requests);
    let cpu = used.busy.as_secs_f64() * 1e6 / float(told.all_requests);
    let mut figures = vec![figure(Metric::Cpu, Unit::MicrosecondsPerRequest, cpu)];
    // At a fixed rate the requests a second are the rate.
    if !matches!(load, Load::FixedRate { .. }) {
        figures.push(figure(
            Metric::Requests,
            Unit::PerSecond,
            told.requests_per_second(),
        ));
    }
    // A new connection's latency is that of its whole life, which `requests` tells already.
    if let (Some(latency), false) = (&told.latency, matches!(load, Load::Connect { .. })) {
        let quantiles = [
            (Metric::P50, 0.5, latency.p50),
            (Metric::P90, 0.9, latency.p90),
            (Metric::P99, 0.99, latency.p99),
            (Metric::P999, 0.999, latency.p999),
        ];
        figures.extend(
            quantiles
                .into_iter()
                .filter(|(_, quantile, _)| requests * (1.0 - quantile) >= BEYOND)
                .map(|(metric, _, value)| figure(metric, Unit::Microseconds, value)),
        );
    }
    figures
}

fn curve(told: &LoadResult) -> Vec<(f64, f64)> {
    let points = told.latency.iter().flat_map(|latency| &latency.curve);
    points.map(|point| (point.quantile, point.micros)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "no round has 2^53 bytes")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
