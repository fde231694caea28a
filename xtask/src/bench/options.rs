//! The command line of `cargo xtask bench`.

use std::{
    io,
    path::{self, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use lab::Generator;

use super::plan::{Scenario, Wanted};

/// How long a run is planned to take, set-up included.
const BUDGET: Duration = Duration::from_secs(12 * 60);
const QUICK_BUDGET: Duration = Duration::from_secs(140);
/// When nothing more is begun: users are told 15 minutes, and 3.
const LIMIT: Duration = Duration::from_secs(14 * 60);
const QUICK_LIMIT: Duration = Duration::from_secs(165);
/// Fewer say nothing about spread.
const QUICK_ROUNDS: u32 = 5;
const ROUNDS: u32 = 9;
/// A rate that every mode can sustain on two cores, and one that makes a slow mode wait.
const RATES: [u32; 2] = [2000, 5000];
/// Numbers of idle pods.
const PODS: [u32; 4] = [1, 10, 50, 200];
/// Idle connections: as many as HAProxy serves where 20,000 descriptors are allowed, with room. Opening
/// so many takes too long for a quick run.
const IDLE: u16 = 5_000;
const QUICK_IDLE: u16 = 1_000;
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
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub(super) compare: Option<PathBuf>,
    /// A further sidecar, described by a file; may be repeated.
    #[arg(long, value_name = "FILE", value_parser = absolute)]
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
        let (budget, limit, rounds, idle, pods): (_, _, _, _, &[u32]) = if self.quick {
            (
                QUICK_BUDGET,
                QUICK_LIMIT,
                QUICK_ROUNDS,
                QUICK_IDLE,
                &QUICK_PODS,
            )
        } else {
            (BUDGET, LIMIT, ROUNDS, IDLE, &PODS)
        };
        // Whoever says how much is to be done gets all of it.
        let is_free = self.rounds.is_none() && self.seconds.is_none();
        Wanted {
            budget,
            limit: is_free.then_some(limit),
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
            idle,
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

/// From where the user is: the task moves to the root of the workspace before it opens anything.
fn absolute(path: &str) -> io::Result<PathBuf> {
    path::absolute(path)
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.options)
    }

    #[test]
    fn bad_input_names_the_option_and_what_would_be_right() {
        let table = [
            ("--only bulk-3", "--only <SCENARIO>", "bulk-1, bulk-8"),
            ("--rounds 0", "--rounds <N>", "1..=100"),
            ("--rate 0", "--rate <N>", "1..=1000000"),
            ("--seconds 0", "--seconds <SECONDS>", "from 0.1 to 60"),
            ("--seconds long", "--seconds <SECONDS>", "from 0.1 to 60"),
            (
                "--load-generator ab",
                "--load-generator <LOAD_GENERATOR>",
                "own, wrk, h2load, iperf3",
            ),
        ];
        for (line, option, cure) in table {
            let error = parse(line).expect_err(line);
            assert!(error.contains(option) && error.contains(cure), "{error}");
        }
    }

    #[test]
    fn only_whoever_leaves_the_extent_to_us_has_a_limit_of_time() {
        let limit = |line| parse(line).expect(line).wanted().limit;
        assert_eq!(limit(""), Some(LIMIT));
        assert_eq!(limit("--quick --mode none"), Some(QUICK_LIMIT));
        assert_eq!(limit("--quick --rounds 20"), None);
        assert_eq!(limit("--seconds 10"), None);
    }

    #[test]
    fn files_are_meant_from_where_the_user_is() {
        let options = parse("--compare old.json --adapter /x/y.yaml").expect("they are paths");
        let here = std::env::current_dir().expect("we are somewhere");
        assert_eq!(options.compare, Some(here.join("old.json")));
        assert_eq!(options.adapter, [PathBuf::from("/x/y.yaml")]);
    }
}
