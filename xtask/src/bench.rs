//! `cargo xtask bench`: what this mesh costs, against sidecars and against nothing.
//!
//! [`plan`] decides what is measured in which order, [`stage`] sets up a lab for each subject, [`mod@run`]
//! goes through the plan, [`statistics`] and [`report`] say what came of it. All labs are up
//! from the first load to the last, so that every mode meets the same minutes of the same machine.

mod cold;
mod compare;
mod cpu;
mod data_plane;
mod descriptors;
mod idle;
mod machine;
mod measurement;
mod memory;
mod options;
mod origin;
mod outcome;
mod plan;
mod probe;
mod processes;
mod progress;
mod report;
mod restart;
mod run;
mod stage;
mod startup;
mod statistics;
mod traffic;
mod waypoint;

use std::path::Path;

use anyhow::{Context, Result, bail};
use lab::sidecar::{Adapter, Kind};

pub(crate) use self::options::Options;
use self::{
    data_plane::Makings,
    machine::Machine,
    outcome::Outcome,
    plan::{Offer, Plan},
    progress::Progress,
    report::Report,
};
use crate::{build, setup};

/// Where reports are written, from the root of the workspace.
const DIRECTORY: &str = "target/bench";

/// Sets the machine up, builds, measures, and writes the reports.
///
/// # Errors
/// It could not begin, or some of what was to be measured could not be; the rest is reported.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !setup::is_root() {
        bail!(
            "the benchmark makes network namespaces and loads eBPF programs, which needs root: \
             run `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
        );
    }
    setup::ensure()?;
    let kinds = kinds(options)?;
    let wanted = options.wanted();
    let plan = Plan::make(&wanted, &offers(&kinds))?;
    let old = options.compare.as_deref().map(compare::read);
    let old = old.transpose().context("--compare")?;
    eprintln!(
        "  ..   building ambit and the load generator with all optimisations (some minutes the \
         first time, which are in no figure)"
    );
    let [ambit, lab_load] = build::programs(true, [build::AMBIT, build::LAB_LOAD])?;
    let programs = lab_load.parent().context("lab-load is in no directory")?;
    let makings = Makings {
        programs: programs.to_owned(),
        ambit,
        kinds,
    };
    if let Err(error) = descriptors::allow() {
        eprintln!(
            "  ..   few file descriptors ({error}): scenarios with many connections may fail"
        );
    }
    eprintln!(
        "  ..   measuring: {} rounds, {:.1} s each load",
        plan.rounds,
        plan.load_time.as_secs_f64()
    );
    let date = origin::now();
    let mut progress = Progress::new(plan.total());
    let outcome = run::run(&plan, wanted.generator, &makings, &mut progress);
    let took = progress.close();
    let command = origin::command(date, took, options.is_quick());
    let machine = Machine::read(origin::versions(&makings.ambit, &plan))?;
    conclude(outcome?, machine, command, old.as_ref())
}

/// Shows and writes what came of it.
fn conclude(
    outcome: Outcome,
    machine: Machine,
    command: report::Command,
    old: Option<&Report>,
) -> Result<()> {
    let failures = outcome.failures();
    let report = Report::new(
        machine,
        command,
        outcome.missing,
        &outcome.samples,
        outcome.curves,
    )
    .with_notes(outcome.notes);
    println!("\n{}", report.table());
    if let Some(old) = old {
        println!(
            "since the old report:\n{}\n",
            compare::between(old, &report)
        );
    }
    let directory = Path::new(DIRECTORY);
    report.write(directory)?;
    println!("took {:.0} s", report.command.seconds);
    for file in ["report.html", "report.md", "report.json"] {
        println!("{}", directory.join(file).display());
    }
    if failures > 0 {
        bail!("{failures} of what was to be measured could not be; the report says why");
    }
    Ok(())
}

/// All sidecars that the benchmark knows, those that aren't there included.
fn kinds(options: &Options) -> Result<Vec<Kind>> {
    let mut kinds = vec![Kind::HaProxy, Kind::HaProxyHttp, Kind::Envoy, Kind::Linkerd];
    for file in &options.adapter {
        let adapter = Adapter::read(file).context("--adapter")?;
        kinds.push(Kind::Adapter(adapter));
    }
    Ok(kinds)
}

fn offers(kinds: &[Kind]) -> Vec<Offer> {
    let offer = |kind: &Kind| Offer {
        mode: kind.mode(),
        is_http: kind.is_http(),
        missing: kind
            .available()
            .err()
            .map(|missing| format!("{}: {}", missing.why, missing.cure)),
    };
    kinds.iter().map(offer).collect()
}
