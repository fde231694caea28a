//! `cargo xtask test`: every test of the workspace, by cargo-nextest; its summary comes last.
//!
//! The end-to-end tests run the workspace's binaries. The rule by which they find them: beside
//! the `deps` directory that holds the test's own executable (`target/debug` as a rule). They are
//! built here first, for Cargo builds a package's binaries only for that package's own tests.

use anyhow::Result;

use crate::{setup, step};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only the tests that match this nextest expression, such as `test(policy)`; no doc tests.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Further arguments for `cargo nextest run`.
    #[arg(last = true, value_name = "NEXTEST ARGUMENTS")]
    nextest: Vec<String>,
}

/// Sets the machine up, builds, and runs the tests.
///
/// # Errors
/// Something could not be built, or a test failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure()?;
    if !setup::is_root() {
        eprintln!("  NOTE not root: the end-to-end tests (package ambit-tests) will fail");
    }
    // With the tests in one build, as nextest has them: built alone, the binaries' dependencies
    // would have other features, and everything would be compiled twice.
    step::run(
        "building binaries and tests",
        step::cargo("build --workspace --bins --tests"),
    )?;
    if options.filter.is_none() {
        step::run("doc tests", step::cargo("test --workspace --doc"))?;
    }
    let mut nextest = step::cargo("nextest run --workspace");
    if let Some(filter) = &options.filter {
        nextest.args(["--filterset", filter]);
    }
    nextest.args(&options.nextest);
    step::run_in_view("tests", nextest)
}
