//! Compiles agent-ebpf and leaves the object in `OUT_DIR`, where `capture::loader` embeds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ebpf_toolchain::Toolchain;

fn main() -> Result<()> {
    // Asked when it runs: a compiled-in path would outlive a move of the checkout, or lead to
    // another checkout that shares the target directory.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let workspace = Path::new(&package).parent().context("no workspace")?;
    for watched in [
        "agent-ebpf/src",
        "agent-ebpf/Cargo.toml",
        "agent-ebpf/Cargo.lock",
        "agent-common/src",
        "agent-common/Cargo.toml",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(watched).display()
        );
    }
    match Toolchain::find() {
        Ok(toolchain) => compile(&toolchain, &workspace.join("agent-ebpf")),
        // Cargo prints this line and fails the build; an error returned from here would come with
        // the script's whole output around it.
        Err(error) => {
            println!("cargo::error={error}");
            Ok(())
        }
    }
}

fn compile(toolchain: &Toolchain, source: &Path) -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    // Beside the host's artefacts, so that `cargo clean` takes it too and debug and release share it.
    let target = out
        .ancestors()
        .nth(4)
        .context("OUT_DIR is too short")?
        .join("ebpf");
    let object = toolchain.build(source, &target, "ambit-ebpf")?;
    fs::copy(&object, out.join("ambit-ebpf"))
        .with_context(|| format!("copying {}", object.display()))?;
    Ok(())
}
