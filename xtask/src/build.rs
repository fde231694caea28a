//! Builds programs of the workspace, and says where Cargo put them.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// A binary of the workspace: its package, and its own name.
pub(crate) type Program = (&'static str, &'static str);

/// The agent.
pub(crate) const AMBIT: Program = ("ambit", "ambit");
/// What pods of the lab run to talk to each other.
pub(crate) const LAB_PEER: Program = ("ambit-tests", "lab-peer");
/// What makes load in a lab.
pub(crate) const LAB_LOAD: Program = ("ambit-tests", "lab-load");

/// Builds programs with one command, Cargo's own progress in view; their paths, in order.
///
/// # Errors
/// One can't be built.
pub(crate) fn programs<const N: usize>(
    release: bool,
    wanted: [Program; N],
) -> Result<[PathBuf; N]> {
    let mut command = step::cargo("build --message-format json-render-diagnostics");
    for (package, name) in wanted {
        command.args(["--package", package, "--bin", name]);
    }
    if release {
        command.arg("--release");
    }
    executables(command, wanted.map(|(_, name)| name))
}

/// Runs Cargo, which is to build programs and to say so in JSON, its own progress in view; the programs' paths, in
/// order. Where Cargo puts a program depends on profile, settings and environment.
///
/// # Errors
/// One can't be built.
pub(crate) fn executables<const N: usize>(
    mut command: Command,
    wanted: [&str; N],
) -> Result<[PathBuf; N]> {
    let mut cargo = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let messages = cargo.stdout.take().context("cargo has no output")?;
    let mut built = [const { None }; N];
    for line in BufReader::new(messages).lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        for (name, path) in wanted.iter().zip(&mut built) {
            if message["target"]["name"] == *name
                && let Some(executable) = message["executable"].as_str()
            {
                *path = Some(PathBuf::from(executable));
            }
        }
    }
    let status = cargo.wait()?;
    let names = wanted.join(" and ");
    if !status.success() {
        bail!("building {names}: {status}");
    }
    if built.iter().any(Option::is_none) {
        bail!("cargo said nothing about where it put {names}");
    }
    Ok(built.map(Option::unwrap_or_default))
}
