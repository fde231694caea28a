//! `cargo xtask check`: formatting, lints, dependencies and documentation, on host and eBPF crates.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, bail};
use ebpf_toolchain::Toolchain;

use crate::{EBPF_CRATE, setup, step};

/// Runs every check, the later ones too when an earlier one fails.
///
/// # Errors
/// A check failed; its output has been shown.
pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
    let toolchain = Toolchain::find()?;
    let ebpf = env::current_dir()?.join(EBPF_CRATE);
    let in_ebpf = |mut command: Command| {
        command.current_dir(&ebpf);
        command
    };

    let mut ebpf_clippy = toolchain.cargo(&ebpf, &target_directory()?.join("ebpf"), "clippy");
    ebpf_clippy.args(["--", "-D", "warnings"]);
    let mut documentation = step::cargo("doc --no-deps --workspace");
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    // What needs no network: the advisories are apart.
    let deny = "deny check bans licenses sources";
    let checks = [
        ("format", step::cargo("fmt --all --check")),
        (
            "format of the eBPF programs",
            in_ebpf(step::cargo("fmt --check")),
        ),
        (
            "clippy",
            step::cargo("clippy --workspace --all-targets -- -D warnings"),
        ),
        ("clippy on the eBPF programs", ebpf_clippy),
        ("documentation", documentation),
        ("dependencies", step::cargo(deny)),
        (
            "dependencies of the eBPF programs",
            in_ebpf(step::cargo(deny)),
        ),
    ];
    let advisories = "deny check --disable-fetch advisories";
    let advisory_checks = [
        ("advisories", step::cargo(advisories)),
        (
            "advisories on the eBPF programs",
            in_ebpf(step::cargo(advisories)),
        ),
    ];

    let mut failed = failures(checks);
    if let Err(error) = fetch_advisories() {
        eprintln!(
            "  NOTE advisories were NOT checked, for their database can't be fetched: {error:#}"
        );
    } else {
        failed.extend(failures(advisory_checks));
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

/// Runs the checks, and returns the titles of those that failed.
fn failures<const N: usize>(checks: [(&'static str, Command); N]) -> Vec<&'static str> {
    checks
        .into_iter()
        .filter_map(|(title, command)| step::run(title, command).err().map(|_| title))
        .collect()
}

/// Brings the database of advisories up to date: an old copy would pass what is known by now.
fn fetch_advisories() -> Result<()> {
    let output = step::cargo("deny fetch db").output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    bail!("{}", words.trim().lines().last().unwrap_or_default())
}

/// Where the build puts its artefacts; the eBPF crate's are in `ebpf` beneath it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let root = env::current_dir()?;
    let directory = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root.join(directory))
}
