//! Compiles agent-ebpf and leaves the object in `OUT_DIR`, where `capture::loader` embeds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ebpf_toolchain::Toolchain;

fn main() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let source = workspace.join("agent-ebpf");
    for watched in [
        "agent-ebpf/src",
        "agent-ebpf/Cargo.toml",
        "agent-common/src",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(watched).display()
        );
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    // Beside the host's artefacts, so that `cargo clean` takes it too and debug and release share it.
    let target = out
        .ancestors()
        .nth(4)
        .context("OUT_DIR is too short")?
        .join("ebpf");
    let object = Toolchain::find()?.build(&source, &target, "ambit-ebpf")?;
    fs::copy(&object, out.join("ambit-ebpf"))
        .with_context(|| format!("copying {}", object.display()))?;
    Ok(())
}
