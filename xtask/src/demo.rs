//! `cargo xtask demo`: the main job, live, on two nodes made of network namespaces.
//!
//! [`stage`] sets up nodes, pods and mesh; each other module shows one thing and judges what it
//! saw. A check that fails says why, and the rest are still run. The lab is taken down at the end,
//! and by its own watchdog after Ctrl-C.

mod certificates;
pub(crate) mod clean;
mod counters;
mod identities;
mod nginx;
mod policy;
mod stage;
mod steady;
mod traffic;
mod wire;

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use lab::{Lab, PodNetwork};

use self::stage::Stage;
use crate::{build, setup, show::Show};

/// Where the outcome of every check is written, from the root of the workspace.
const REPORT: &str = "target/demo/report.json";

/// How the demo is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave the lab up at the end, and say how to enter its pods and how to take it down.
    #[arg(long)]
    keep: bool,
    /// The address families of nodes and pods.
    #[arg(long, value_enum, default_value = "v4")]
    family: Family,
    /// How pods are connected to their node.
    #[arg(long, value_enum, default_value = "routed")]
    pods: Pods,
    /// Build Ambit with all optimisations, which takes minutes; the default is a debug build with
    /// optimised dependencies.
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Family {
    V4,
    V6,
    Dual,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Pods {
    /// A veth pair and a route for each pod.
    Routed,
    /// A bridge on each node.
    Bridged,
}

/// Shows one thing on the stage. What it returns says what was seen: the first line in the closing
/// table, all of it while the demo runs and in the report.
type Check = fn(&mut Stage<'_>) -> Result<String>;

/// What is shown, in this order.
const CHECKS: &[(&str, Check)] = &[
    ("curl to nginx on another node", traffic::across_nodes),
    ("curl to nginx on the same node", traffic::on_one_node),
    ("bytes on the wire", wire::shows_only_tls),
    ("identities at both sides", identities::known_to_both),
    (
        "policy denies, then allows again",
        policy::denies_and_allows,
    ),
    (
        "certificates renewed under traffic",
        certificates::renewed_under_traffic,
    ),
    ("counters moved", counters::moved),
    (
        "bytes on the wire, to the end",
        wire::showed_only_tls_to_the_end,
    ),
];
const SET_UP_LAB: &str = "two nodes with pods";
const START_MESH: &str = "control and two agents";
const KEEP_LAB: &str = "the lab stays up";
const CLEAN_UP: &str = "nothing is left on this machine";

/// Sets the machine up, builds, shows everything, and writes the report.
///
/// # Errors
/// It could not begin, or a check failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !setup::is_root() {
        bail!(
            "the demo makes network namespaces and loads eBPF programs, which needs root: \
             run `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
        );
    }
    // An earlier run's says nothing about this one.
    match fs::remove_file(REPORT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => bail!("{REPORT}: {error}"),
        _ => {}
    }
    setup::ensure()?;
    eprintln!("  ..   building ambit (minutes the first time)");
    let [ambit] = build::programs(options.release, [build::AMBIT])?;
    let started = Instant::now();
    let mut show = Show::new(CHECKS.len() + 3);
    let parting = play(options, &ambit, &mut show);
    let closed = show.close(Path::new(REPORT), started.elapsed());
    print!("{parting}");
    closed
}

/// Everything from the first namespace to the last. Returns how to go on with a lab that stays.
fn play(options: &Options, ambit: &Path, show: &mut Show) -> String {
    let set_up = || build_lab("demo", ambit, options.pods, options.family);
    let Some(lab) = show.make(SET_UP_LAB, set_up) else {
        return String::new();
    };
    let hints = perform(&lab, ambit, options.keep, show);
    if !options.keep {
        show.check(CLEAN_UP, || clean::take_down(lab));
        return String::new();
    }
    let kept = show.make(KEEP_LAB, || Ok((lab.keep()?, "its processes go on".into())));
    format!("\n{}\n{hints}", kept.unwrap_or_default())
}

/// Two nodes, with the lab's own programs beside `ambit`, and how to find them.
pub(crate) fn build_lab(
    name: &str,
    ambit: &Path,
    pods: Pods,
    family: Family,
) -> Result<(Lab, String)> {
    let network = match pods {
        Pods::Routed => PodNetwork::Routed,
        Pods::Bridged => PodNetwork::Bridged,
    };
    let family = match family {
        Family::V4 => lab::Family::V4,
        Family::V6 => lab::Family::V6,
        Family::Dual => lab::Family::Dual,
    };
    let programs = ambit.parent().context("ambit is in no directory")?;
    let builder = Lab::builder(name).programs(programs);
    let lab = builder.pods(network).family(family).build()?;
    let detail = format!("network namespaces {}-*", lab.name());
    Ok((lab, detail))
}

fn perform(lab: &Lab, ambit: &Path, keep: bool, show: &mut Show) -> String {
    let Some(mut stage) = show.make(START_MESH, || Stage::set(lab, ambit)) else {
        return String::new();
    };
    for (name, check) in CHECKS {
        show.check(name, || check(&mut stage));
    }
    let hints = stage.hints();
    if keep {
        stage.leave_up();
    }
    hints
}

/// Asks `attempt` again until it succeeds; its last complaint is in the error.
fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    /// Each attempt starts a process: not more of them than it takes to look prompt.
    const INTERVAL: Duration = Duration::from_millis(100);

    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}
