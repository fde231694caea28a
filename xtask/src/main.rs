//! `cargo xtask`: the commands that developers and CI run.
//!
//! It depends on neither the agent nor its eBPF programs, so that `setup` can be built on a
//! machine that has no compiler for them yet.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

mod bench;
mod build;
mod check;
mod demo;
mod fuzz;
mod image;
mod setup;
mod show;
mod soak;
mod step;
mod test;

/// Where the eBPF crate is, from the root of the workspace.
const EBPF_CRATE: &str = "agent-ebpf";

/// Set-up, tests and checks of Ambit.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Task {
    /// Find or install what the build, the checks and the tests need.
    Setup(setup::Options),
    /// Show the main job live, on two nodes made of network namespaces; needs root.
    Demo(demo::Options),
    /// Measure what the mesh costs, against sidecars and against nothing; needs root.
    Bench(bench::Options),
    /// Build the container image with whichever of docker, podman and buildah is there.
    Image(image::Options),
    /// Check formatting, lints, dependencies and documentation.
    Check,
    /// Fuzz the parsers that somebody else's bytes reach.
    Fuzz(fuzz::Options),
    /// Have everything happen to a mesh under load for as long as you like, and see that nothing is lost; needs root.
    Soak(soak::Options),
    /// Run all tests; the end-to-end tests need root.
    Test(test::Options),
}

fn main() -> ExitCode {
    if let Some(error) = fuzz::instrument() {
        eprintln!("error: cannot start rustc: {error}");
        return ExitCode::FAILURE;
    }
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    // `cargo run` says where it is now; what was compiled in may have been moved since, or be
    // another checkout that shares the target directory.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("run it by `cargo xtask`")?;
    let root = Path::new(&package)
        .parent()
        .context("xtask lies in no workspace")?;
    env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))?;
    match task {
        Task::Setup(options) => setup::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Image(options) => image::run(&options),
        Task::Check => check::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Test(options) => test::run(&options),
    }
}
