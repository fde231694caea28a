//! A run: labs up, step by step through the plan, labs down.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use lab::{Generator, Lab};

use super::{
    cold,
    cpu::Clock,
    data_plane::Makings,
    idle,
    measurement::{Curve, Metric},
    memory,
    outcome::{Cell, Outcome},
    plan::{Plan, Scenario, Step},
    progress::Progress,
    restart,
    stage::Stage,
    startup, statistics,
    traffic::{self, Shares, Shown},
};

/// Why a step is left out of a run whose time is up.
const LATE: &str = "left out, as the time of the run was up: try again on a machine at rest, or \
                    with --only";
/// How many servers scenario `connect-cold` connects to.
const COLD_SERVERS: usize = 32;
/// Others' share of the CPU, and the hypervisor's, that is worth a note.
const NOTEWORTHY: f64 = 0.02;

/// What accounting showed on the way.
#[derive(Debug, Default)]
struct Accounts {
    shares: Vec<Shares>,
}

/// Measures all that is planned. What fails is in the outcome, and the rest is still measured.
///
/// # Errors
/// A lab can't be made, or not be taken down.
pub(super) fn run(
    plan: &Plan,
    generator: Generator,
    makings: &Makings,
    progress: &mut Progress,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    outcome.missing.clone_from(&plan.missing);
    note_others(&mut outcome)?;
    let is_memory = |step: &&Step| step.scenario == Scenario::Memory;
    let (idle, busy): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(is_memory);
    if !busy.is_empty() {
        perform(plan, &busy, generator, makings, progress, &mut outcome)?;
    }
    for step in idle {
        let Some((cell, estimate)) = in_time(plan, step, progress, &mut outcome) else {
            continue;
        };
        let show = |detail: &str| progress.show(&format!("memory, {}", cell.mode), detail);
        let subject = &plan.subjects[step.subject];
        let run = memory::run(subject, makings, plan, &cell, &mut outcome, show);
        if let Err(error) = run {
            fail(progress, &mut outcome, &cell, &format!("{error:#}"));
        }
        progress.advance(estimate);
    }
    Ok(outcome)
}

/// All steps that need traffic, in labs that are all up from the first to the last.
fn perform(
    plan: &Plan,
    steps: &[&Step],
    generator: Generator,
    makings: &Makings,
    progress: &mut Progress,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut labs = Vec::new();
    for _ in &plan.subjects {
        labs.push(makings.lab()?);
    }
    let mut stages = Vec::new();
    for ((index, subject), lab) in plan.subjects.iter().enumerate().zip(&labs) {
        let mut own = steps.iter().filter(|step| step.subject == index).peekable();
        if own.peek().is_none() {
            stages.push(None);
            continue;
        }
        progress.show("setting up", subject.mode());
        let cold = if plan.has_cold(index) {
            COLD_SERVERS
        } else {
            0
        };
        let stage = Stage::set(lab, subject, makings, cold);
        progress.advance(plan.set_up(index));
        if let Err(error) = &stage {
            for step in own {
                let reason = format!("it could not be set up: {error:#}");
                fail(progress, outcome, &cell(plan, step), &reason);
            }
        }
        stages.push(stage.ok());
    }

    let mut accounts = Accounts::default();
    for step in steps {
        let Some((cell, estimate)) = in_time(plan, step, progress, outcome) else {
            continue;
        };
        let line = format!("{}, round {} of {}", cell.scenario, step.round, plan.rounds);
        progress.show(&line, &cell.describe());
        if let (Some(stage), false) = (&mut stages[step.subject], outcome.is_given_up(&cell)) {
            match one(plan, step, generator, stage, &mut accounts) {
                Ok(Shown {
                    unsustained: Some(reason),
                    ..
                }) => outcome.give_up(&cell, &reason),
                Ok(shown) => record(outcome, &cell, step.round, shown),
                Err(error) => fail(progress, outcome, &cell, &format!("{error:#}")),
            }
        }
        progress.advance(estimate);
    }
    accounts.note(outcome);
    progress.show("taking the labs down", "");
    drop(stages);
    labs.into_iter().try_for_each(Lab::tear_down)?;
    Ok(())
}

/// One step that needs traffic.
fn one(
    plan: &Plan,
    step: &Step,
    generator: Generator,
    stage: &mut Stage<'_>,
    accounts: &mut Accounts,
) -> Result<Shown> {
    let figures = match (step.scenario, step.scenario.load(), step.placement) {
        (_, Some(load), Some(placement)) => {
            let shown = traffic::run(stage, placement, generator, &load, plan.load_time)?;
            accounts.shares.extend(shown.shares);
            return Ok(shown);
        }
        (Scenario::ConnectCold, ..) => cold::run(stage)?,
        (Scenario::Startup, ..) => startup::run(stage, step.round)?,
        (Scenario::Idle(connections), ..) => return idle::run(stage, connections),
        (Scenario::ProxyRestart, ..) => restart::run(stage)?,
        (scenario, ..) => bail!("{scenario} isn't measured by traffic"),
    };
    Ok(Shown {
        figures,
        ..Shown::default()
    })
}

fn record(outcome: &mut Outcome, cell: &Cell, round: u32, shown: Shown) {
    let has = |metric| shown.figures.iter().any(|figure| figure.metric == metric);
    if has(Metric::P90) && !has(Metric::P999) {
        outcome.notes.insert(traffic::TOO_FEW.to_owned());
    }
    outcome.notes.extend(shown.note);
    let samples = shown
        .figures
        .iter()
        .map(|figure| cell.sample(round, None, *figure));
    outcome.samples.extend(samples);
    if !shown.curve.is_empty() {
        outcome.curves.push(Curve {
            scenario: cell.scenario.clone(),
            mode: cell.mode.clone(),
            placement: cell.placement,
            round,
            points: shown.curve,
        });
    }
}

fn fail(progress: &Progress, outcome: &mut Outcome, cell: &Cell, reason: &str) {
    if !outcome.is_given_up(cell) {
        progress.say(&format!(
            "  FAIL {} {}: {reason}",
            cell.scenario,
            cell.describe()
        ));
        outcome.fail(cell, reason);
    }
}

/// What a step measures, and how long that takes, about; a step that there is no time for is left out.
fn in_time(
    plan: &Plan,
    step: &Step,
    progress: &mut Progress,
    outcome: &mut Outcome,
) -> Option<(Cell, Duration)> {
    let cell = cell(plan, step);
    let estimate = plan.estimate(step);
    if progress.is_late(plan.limit, estimate) {
        outcome.leave_out(&cell, LATE);
        progress.advance(estimate);
        return None;
    }
    Some((cell, estimate))
}

fn cell(plan: &Plan, step: &Step) -> Cell {
    let mode = plan.subjects[step.subject].mode();
    Cell::new(step.scenario, mode, step.placement)
}

/// Looks at what the machine does before anything is started: it is in every figure.
fn note_others(outcome: &mut Outcome) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);

    let before = Clock::now()?;
    thread::sleep(LOOK);
    let share = Clock::now()?.since(&before).busy_share();
    if share > NOTEWORTHY {
        outcome.notes.insert(format!(
            "the machine was {:.0} % busy with something else before the start: CPU figures are \
             too high and all others worse than they would be on a machine at rest",
            100.0 * share
        ));
    }
    Ok(())
}

impl Accounts {
    fn note(&self, outcome: &mut Outcome) {
        let in_lab: Vec<f64> = self.shares.iter().map(|shares| shares.in_lab).collect();
        if in_lab.is_empty() {
            return;
        }
        outcome.notes.insert(format!(
            "CPU time is the whole machine's that was neither idle nor stolen, by /proc/stat, the \
             load generator and the server included; by cpu.stat, the lab's own cgroups had {:.0} % \
             of it (median of the loads), and the kernel's softirqs and all else the rest",
            100.0 * statistics::median(&in_lab)
        ));
        let stolen = self
            .shares
            .iter()
            .map(|shares| shares.stolen)
            .fold(0.0, f64::max);
        if stolen > NOTEWORTHY {
            outcome.notes.insert(format!(
                "the hypervisor took up to {:.0} % of the CPU time during a load: compare with care",
                100.0 * stolen
            ));
        }
    }
}

#[cfg(test)]
mod tests;
