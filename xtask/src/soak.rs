//! `cargo xtask soak`: load, kills, upgrades, changes of policy, pods that come and go, and renewed certificates, for
//! as long as one likes; what must hold is checked all along. `lab::soak` does it; a test runs two minutes of it.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{
    Lab, Mesh,
    soak::{self, Report, Settings},
};

use crate::{
    build,
    demo::{self, Family, Pods, clean},
    setup,
    show::Show,
};

/// All figures, from the root of the workspace.
const REPORT: &str = "target/soak/report.json";
/// What came of the checks.
const CHECKS: &str = "target/soak/checks.json";
/// The longest that a recovery may take: what is promised of an optimised build, and far more for others.
const PROMISED: Duration = Duration::from_secs(2);
const PATIENT: Duration = Duration::from_secs(30);

/// How the soak is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// For how long, from when the load is up. Less than two don't suffice for everything to happen.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// The order of disturbances, as an earlier run told it.
    #[arg(long)]
    seed: Option<u64>,
    /// The address families of nodes and pods.
    #[arg(long, value_enum, default_value = "v4")]
    family: Family,
    /// How pods are connected to their node.
    #[arg(long, value_enum, default_value = "routed")]
    pods: Pods,
    /// Build Ambit with all optimisations, which takes minutes, and hold each recovery to two seconds.
    #[arg(long)]
    release: bool,
}

/// Sets the machine up, builds, soaks, and writes the report.
///
/// # Errors
/// It could not begin, or something didn't hold.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !setup::is_root() {
        bail!(
            "the soak makes network namespaces and loads eBPF programs, which needs root: \
             run `sudo -E env PATH=\"$PATH\" cargo xtask soak`"
        );
    }
    for report in [REPORT, CHECKS] {
        // An earlier run's says nothing about this one.
        match fs::remove_file(report) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => bail!("{report}: {error}"),
            _ => {}
        }
    }
    setup::ensure()?;
    eprintln!("  ..   building ambit (minutes the first time)");
    let tools = [build::AMBIT, build::LAB_PEER, build::LAB_LOAD];
    let [ambit, ..] = build::programs(options.release, tools)?;
    let started = Instant::now();
    let mut show = Show::new(3);
    let report = play(options, &ambit, &mut show);
    write(&report)?;
    show.close(Path::new(CHECKS), started.elapsed())?;
    println!();
    for (what, figures) in report.table() {
        println!("{what:12}  {figures}");
    }
    println!("\nseed {}; all figures: {REPORT}", report.seed);
    Ok(())
}

fn play(options: &Options, ambit: &Path, show: &mut Show) -> Report {
    let mut report = Report::default();
    let lab = show.make("two nodes", || {
        demo::build_lab("soak", ambit, options.pods, options.family)
    });
    let Some(lab) = lab else {
        return report;
    };
    let mut progress = show.progress();
    show.check("soak", || {
        soak(options, ambit, &lab, &mut report, &mut progress)
    });
    show.check("nothing is left on this machine", || clean::take_down(lab));
    report
}

fn soak(
    options: &Options,
    ambit: &Path,
    lab: &Lab,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<String> {
    let settings = Settings {
        time: Duration::from_secs(options.minutes * 60),
        seed: options.seed.unwrap_or_else(rand::random),
        recovery: if options.release { PROMISED } else { PATIENT },
    };
    let mesh = Mesh::default().program(ambit);
    let done = soak::run(lab, mesh, settings, report, tell);
    done.with_context(|| format!("seed {}", settings.seed))?;
    ensure!(
        report.is_complete(),
        "not everything has happened: run it for longer"
    );
    Ok(format!(
        "{} requests in {} s, {} lost; {} kills, {} takeovers, {} bad inputs",
        report.answered,
        report.seconds,
        report.lost,
        report.kills.values().sum::<usize>(),
        report.takeovers,
        report.bad_inputs
    ))
}

fn write(report: &Report) -> Result<()> {
    let path = Path::new(REPORT);
    let doing = || format!("cannot write {REPORT}");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(doing)?;
    }
    let text = serde_json::to_string_pretty(report)?;
    fs::write(path, text + "\n").with_context(doing)
}
