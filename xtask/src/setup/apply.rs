//! Carries out the steps of the plan.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    facts,
    needs::{self, BPF_LINKER_VERSION, NEEDS, Source},
    plan::Step,
};
use crate::step;

/// Installs packages (`$@`) without starting their services now (policy-rc.d) or at boot (`$services`).
///
/// An existing policy is the administrator's, and stays. The traps remove ours on Ctrl-C too.
const APT_INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
if command -v systemctl > /dev/null; then
    for service in $services; do
        systemctl disable --quiet "$service" || true
    done
fi
"#;

/// Does one step, and shows its output if it fails.
pub(super) fn run(step: &Step) -> Result<()> {
    match step {
        Step::AptUpdate => step::run("apt-get update", {
            let mut command = as_root("apt-get")?;
            command.args(["update", "--quiet"]);
            command
        }),
        Step::Apt(packages) => step::run(
            &format!("apt-get install {}", packages.join(" ")),
            apt_install(packages)?,
        ),
        Step::RustupNightly => step::run("rustup toolchain install nightly (rust-src, clippy)", {
            rustup("toolchain install nightly --profile minimal --component rust-src,clippy")
        }),
        Step::RustupComponent(name) => step::run(
            &format!("rustup component add {name}"),
            rustup(&format!("component add {name}")),
        ),
        Step::Crate { name, version } => {
            let install = format!("install --locked {name}@{version}");
            let mut command = step::cargo(&install);
            // It waits for compilers and tests: what its optimisation takes never comes back.
            command
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
            step::run(&format!("cargo {install}"), command)
        }
        Step::Python { name, version } => step::run(
            &format!("pipx install {name}=={version}"),
            pipx_install(name, version)?,
        ),
        Step::BpfLinker { llvm } => step::run(
            &format!("cargo install bpf-linker@{BPF_LINKER_VERSION}, linked to LLVM {llvm}"),
            install_bpf_linker(*llvm),
        ),
    }
}

fn apt_install(packages: &[String]) -> Result<Command> {
    let services: Vec<&str> = NEEDS
        .iter()
        .filter_map(|need| match need.source {
            Source::Debian { package, service } if packages.iter().any(|p| p == package) => service,
            _ => None,
        })
        .collect();
    // Through env, for sudo passes no variables on.
    let mut command = as_root("env")?;
    command
        .arg(format!("services={}", services.join(" ")))
        .args(["sh", "-c", APT_INSTALL, "sh"])
        .args(packages);
    Ok(command)
}

fn pipx_install(name: &str, version: &str) -> Result<Command> {
    let directory = needs::python_directory(name, version)?;
    let mut command = Command::new("pipx");
    // Forced, because what is there isn't whole, or it wouldn't be missing.
    command
        .args(["install", "--force", &format!("{name}=={version}")])
        .env("PIPX_BIN_DIR", directory.join("bin"))
        .env("PIPX_HOME", directory);
    Ok(command)
}

fn install_bpf_linker(llvm: u32) -> Command {
    // Forced, because one that was linked to an LLVM since removed counts as installed.
    let mut command = step::cargo(&format!(
        "install --locked --force bpf-linker@{BPF_LINKER_VERSION} --no-default-features \
         --features llvm-{llvm}"
    ));
    // Elsewhere its build script looks for llvm-config on the path.
    let prefix = needs::llvm_prefix(llvm);
    if Path::new(&prefix).is_dir() {
        command.env("LLVM_PREFIX", prefix);
    }
    command
}

fn rustup(arguments: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(arguments.split_whitespace());
    command
}

fn as_root(program: &str) -> Result<Command> {
    facts::as_root(program).context("installing packages needs root, or sudo without a password")
}
