//! `cargo xtask fuzz`: libFuzzer on the parsers that somebody else's bytes reach.
//!
//! cargo-fuzz does the same with a nightly compiler. Without sanitizers, which our safe code has little need of,
//! coverage is all that libFuzzer wants of the compiler, and stable has it: as a pass of LLVM's. Only our own crates get
//! it, for third-party ones would all have to be compiled anew. So Cargo is told to call this program in the place of
//! rustc for crates of the workspace ([`instrument`]).

mod report;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};

use self::report::Report;
use crate::{build, check, step};

/// Has this program be rustc.
const AS_RUSTC: &str = "AMBIT_XTASK_AS_RUSTC";
/// Names the target to the program that has them all.
const TARGET: &str = "AMBIT_FUZZ_TARGET";
/// Crates whose coverage leads the fuzzer.
const INSTRUMENTED: [&str; 2] = ["ambit", "ambit_common"];
/// As cargo-fuzz has them.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Seconds for one input, and mebibytes for all: what takes more is a finding.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];
/// Seeds, a directory for each target, and beside them words that a target's inputs are made of.
const SEEDS: &str = "tests/fuzz/corpus";
const DICTIONARIES: &str = "tests/fuzz/dictionaries";

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this target: the name of a directory in tests/fuzz/corpus.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Run this input once, such as one that a target failed with.
    #[arg(
        long,
        value_name = "FILE",
        requires = "target",
        conflicts_with = "seconds"
    )]
    input: Option<PathBuf>,
}

/// Builds the targets and runs each; the later ones too when an earlier one fails.
///
/// # Errors
/// They can't be built, or one has failed; the error says how to run it again.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = targets(options.target.as_deref())?;
    let program = build()?;
    if let (Some(input), [target]) = (&options.input, &targets[..]) {
        let mut once = Command::new(program);
        once.env(TARGET, target).args(LIMITS).arg(input);
        return step::run_in_view(target, once);
    }
    let mut failed = Vec::new();
    for target in &targets {
        eprintln!("  ..   {target}");
        match fuzz(&program, target, options.seconds) {
            Ok(report) => eprintln!("  ok   {target}: {report}"),
            Err(error) => {
                eprintln!("  FAIL {target}: {error:#}");
                failed.push(target.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}

/// Goes on as rustc, if Cargo has called us for that. Returns only if not, or if there is no rustc.
pub(crate) fn instrument() -> Option<std::io::Error> {
    env::var_os(AS_RUSTC)?;
    let mut arguments = env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let arguments: Vec<_> = arguments.collect();
    let is_ours = arguments
        .windows(2)
        .any(|pair| pair[0] == "--crate-name" && INSTRUMENTED.iter().any(|name| pair[1] == *name));
    rustc.args(arguments);
    if is_ours {
        rustc.args(FLAGS);
    }
    Some(rustc.exec())
}

/// The names of all targets, or of that one.
fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(SEEDS).context(SEEDS)? {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort_unstable();
    match only {
        None => Ok(all),
        Some(name) if all.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no target {name}: there are {}", all.join(", ")),
    }
}

/// Compiles the program that has all targets, coverage in it.
fn build() -> Result<PathBuf> {
    // As all tests are, so that third-party crates have the same features and are compiled once.
    let mut command = step::cargo(
        "test --workspace --bin ambit-fuzz --features ambit-fuzz/libfuzzer --no-run \
         --message-format json-render-diagnostics",
    );
    command.env(AS_RUSTC, "1");
    command.env("RUSTC_WORKSPACE_WRAPPER", env::current_exe()?);
    let [program] = build::executables(command, ["ambit-fuzz"])?;
    Ok(program)
}

/// Fuzzes one target, and says what came of it.
fn fuzz(program: &Path, target: &str, seconds: u64) -> Result<Report> {
    let directory = check::target_directory()?.join("fuzz");
    let [found, artifacts] =
        [format!("corpus/{target}"), "artifacts".to_owned()].map(|it| directory.join(it));
    for directory in [&found, &artifacts] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let mut command = Command::new(program);
    command.env(TARGET, target).args(LIMITS);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg("-print_final_stats=1");
    command.arg(format!(
        "-artifact_prefix={}/{target}-",
        artifacts.display()
    ));
    let dictionary = Path::new(DICTIONARIES).join(target);
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // What is found goes to the first, and is where the next run goes on.
    command.arg(found).arg(Path::new(SEEDS).join(target));
    let (status, output) = lines(command)?;
    if status.success() {
        let report = Report::read(&output);
        return report.context("libFuzzer reports no coverage: is LLVM's pass gone?");
    }
    let mut kept = output
        .iter()
        .filter_map(|line| line.split_once("Test unit written to "));
    let how = match kept.next_back() {
        Some((_, file)) => {
            format!("run it again by: cargo xtask fuzz --target {target} --input {file}")
        }
        None => "no input was kept".to_owned(),
    };
    Err(anyhow!("{}\n{how}", report::cause(&output)))
}

/// Runs libFuzzer, which reports on stderr.
fn lines(mut command: Command) -> Result<(std::process::ExitStatus, Vec<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the fuzzer")?;
    let output = child.stderr.take().context("the fuzzer has no output")?;
    let lines = BufReader::new(output).split(b'\n');
    let lines = lines.map(|line| Ok(String::from_utf8_lossy(&line?).into_owned()));
    let lines: Result<Vec<String>> = lines.collect();
    Ok((child.wait()?, lines?))
}
