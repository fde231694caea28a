//! Builds `ambit`.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// Builds the program, with Cargo's own progress in view, and says where it is.
pub(super) fn ambit(release: bool) -> Result<PathBuf> {
    eprintln!("  ..   building ambit (minutes the first time)");
    // Cargo says where it put the program: that depends on profile, settings and environment.
    let mut command =
        step::cargo("build --package ambit --bin ambit --message-format json-render-diagnostics");
    if release {
        command.arg("--release");
    }
    let mut cargo = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let messages = cargo.stdout.take().context("cargo has no output")?;
    let mut program = None;
    for line in BufReader::new(messages).lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        if message["reason"] == "compiler-artifact" && message["target"]["name"] == "ambit" {
            program = message["executable"]
                .as_str()
                .map(PathBuf::from)
                .or(program);
        }
    }
    let status = cargo.wait()?;
    if !status.success() {
        bail!("building ambit: {status}");
    }
    program.context("cargo built no program named ambit")
}
