//! The command line of `cargo xtask bench`.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use lab::Generator;

use super::plan::{Scenario, Wanted};

/// How long a run may take, set-up included; the bounds that users are told are higher.
const BUDGET: Duration = Duration::from_secs(12 * 60);
const QUICK_BUDGET: Duration = Duration::from_secs(150);
/// Fewer say nothing about spread.
const QUICK_ROUNDS: u32 = 5;
const ROUNDS: u32 = 9;
/// A rate that every mode can sustain on two cores, and one that makes a slow mode wait.
const RATES: [u32; 2] = [2000, 5000];
/// Numbers of idle pods.
const PODS: [u32; 4] = [1, 10, 50, 200];
/// Starting 200 sidecars of each kind takes too long for a quick run.
const QUICK_PODS: [u32; 3] = [1, 10, 50];

/// How the benchmark is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A first impression in less than 3 minutes: 5 short rounds, and memory up to 50 pods. The
    /// default takes less than 15.
    #[arg(long)]
    quick: bool,
    /// Only this scenario, such as `bulk-1` or `fixed-rate-2000`; may be repeated.
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Only this mode, such as `ambit`; may be repeated. Ratios need `none` among them.
    #[arg(long, value_name = "MODE")]
    pub(super) mode: Vec<String>,
    /// How often each is measured, 1 to 100; below 5 the spread says little. Default 9, quick 5.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each load runs, 0.1 to 60. Default: as long as the time of the whole run allows.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Requests a second of a scenario `fixed-rate-N`; may be repeated. Default 2000 and 5000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Vec<u32>,
    /// Who makes the load, to check our own generator by. Scenarios that it can't do are left out.
    #[arg(long, value_enum, default_value = "own")]
    load_generator: LoadGenerator,
    /// An earlier run's report.json: shows what moved beyond noise since.
    #[arg(long, value_name = "FILE")]
    pub(super) compare: Option<PathBuf>,
    /// A further sidecar, described by a file; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(super) adapter: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LoadGenerator {
    Own,
    Wrk,
    H2load,
    Iperf3,
}

impl Options {
    /// Whether rounds are fewer and shorter than they should be.
    pub(super) fn is_quick(&self) -> bool {
        self.quick
    }

    /// What it says, with the defaults of what it doesn't say.
    pub(super) fn wanted(&self) -> Wanted {
        let (budget, rounds, pods): (_, _, &[u32]) = if self.quick {
            (QUICK_BUDGET, QUICK_ROUNDS, &QUICK_PODS)
        } else {
            (BUDGET, ROUNDS, &PODS)
        };
        Wanted {
            budget,
            rounds: self.rounds.unwrap_or(rounds),
            seconds: self.seconds,
            only: self.only.clone(),
            modes: self.mode.clone(),
            rates: if self.rate.is_empty() {
                RATES.to_vec()
            } else {
                self.rate.clone()
            },
            pods: pods.to_vec(),
            generator: self.generator(),
        }
    }

    fn generator(&self) -> Generator {
        match self.load_generator {
            LoadGenerator::Own => Generator::Own,
            LoadGenerator::Wrk => Generator::Wrk,
            LoadGenerator::H2load => Generator::H2load,
            LoadGenerator::Iperf3 => Generator::Iperf3,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds from 0.1 to 60, such as 1.5".to_owned())
}
