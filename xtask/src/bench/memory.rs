//! `memory`: what the proxies of idle pods take, against the number of pods.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use lab::Pod;

use super::{
    data_plane::{DataPlane, Makings},
    measurement::{Metric, Unit},
    outcome::{Cell, Figure, Outcome},
    plan::{Plan, Subject},
    processes::{Memory, available_memory, mebibytes},
    stage,
};

/// How long proxies may take to come to rest after the last pod was added.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two readings.
const INTERVAL: Duration = Duration::from_millis(100);
/// The share of the machine's free memory that may be used.
const USABLE: f64 = 0.8;
/// How long the agents may take to know all pods, and to have their certificates.
const KNOWN: Duration = Duration::from_secs(60);

/// Fills two nodes with idle pods, half of them on each, and reads the memory of the subject's
/// proxies at each of the numbers in `counts`. A round is a reading: the processes stay.
///
/// # Errors
/// The lab can't be made, or a proxy doesn't start. What was read before stays.
pub(super) fn run(
    subject: &Subject,
    makings: &Makings,
    plan: &Plan,
    cell: &Cell,
    outcome: &mut Outcome,
    mut show: impl FnMut(&str),
) -> Result<()> {
    let lab = makings.lab()?;
    lab.namespace(stage::NAMESPACE).enrolled()?;
    let mut data_plane = DataPlane::start(&lab, subject, makings, &[])?;
    let mut pods: Vec<Pod> = Vec::new();
    let mut last = Memory::default();
    for &count in &plan.pods {
        let per_pod = last.resident / (pods.len().max(1) as u64);
        let wanted = per_pod * u64::from(count).saturating_sub(pods.len() as u64);
        let available = available_memory()?;
        if !fits(wanted, available) {
            outcome.leave_out(
                cell,
                &format!(
                    "{count} pods: their proxies would take {:.0} MiB more, and {:.0} MiB are free",
                    mebibytes(wanted),
                    mebibytes(available)
                ),
            );
            break;
        }
        show(&format!("{count} pods"));
        while pods.len() < count as usize {
            let number = pods.len() + 1;
            let node = if number % 2 == 1 { "a" } else { "b" };
            let name = format!("idle-{number}");
            let pod = lab.node(node).pod(&name, stage::spec(&name))?;
            data_plane.add(&pod)?;
            pods.push(pod);
        }
        data_plane
            .await_pods(&lab, &pods, KNOWN)
            .with_context(|| format!("{count} pods"))?;
        thread::sleep(SETTLE);
        for round in 1..=plan.rounds {
            last = Memory::of(&data_plane.pids(&lab))?;
            let figure = Figure {
                metric: Metric::Resident,
                unit: Unit::Mebibytes,
                value: mebibytes(last.resident),
            };
            outcome
                .samples
                .push(cell.sample(round, Some(count), figure));
            thread::sleep(INTERVAL);
        }
    }
    outcome.notes.insert(format!(
        "memory: with {} pods, {} has {:.1} MiB resident, {:.1} MiB if a page that processes share \
         counts once",
        pods.len(),
        cell.mode,
        mebibytes(last.resident),
        mebibytes(last.proportional)
    ));
    drop(data_plane);
    lab.tear_down()?;
    Ok(())
}

fn fits(wanted: u64, available: u64) -> bool {
    mebibytes(wanted) <= USABLE * mebibytes(available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_started_only_where_a_fifth_of_free_memory_remains() {
        for (wanted, available, expected) in [
            (0, 0, true),
            (800, 1000, true),
            (801, 1000, false),
            (5000, 1000, false),
        ] {
            assert_eq!(fits(wanted, available), expected, "{wanted} of {available}");
        }
    }
}
