//! Looks at the machine, and changes nothing.

use std::{
    env,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use ebpf_toolchain::{Error, Toolchain};

use super::{
    needs::{self, Need, Source},
    plan::{Ebpf, Facts, Step},
};

/// What is there of `needs`, and what isn't. `tried` are the steps that this run has taken.
pub(super) fn gather(needs: &'static [Need], tried: Vec<Step>) -> Facts {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_there(need)).collect();
    let ebpf = ebpf();
    let complete = missing.is_empty() && ebpf == Ebpf::Ready;
    Facts {
        missing,
        ebpf,
        // Asking sudo takes time, and means something only if there is something to install.
        apt: !complete && on_path("apt-get") && as_root("true").is_some(),
        rustup: on_path("rustup"),
        tried,
    }
}

/// A command that runs `program` as root without asking for a password, if that can be had.
pub(super) fn as_root(program: &str) -> Option<Command> {
    if is_root() {
        return Some(Command::new(program));
    }
    let allowed = Command::new("sudo").args(["-n", "true"]).output();
    allowed.ok()?.status.success().then(|| {
        let mut command = Command::new("sudo");
        command.args(["-n", program]);
        command
    })
}

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|process| process.uid() == 0)
}

fn ebpf() -> Ebpf {
    match Toolchain::find() {
        Ok(toolchain) if toolchain.has_clippy() => Ebpf::Ready,
        Ok(toolchain) => Ebpf::NoClippy {
            rustup: toolchain.is_rustup(),
        },
        Err(Error::NoLinker { compilers, .. }) => Ebpf::NoLinker(
            compilers
                .iter()
                .map(|(_, llvm)| (*llvm, Path::new(&needs::llvm_prefix(*llvm)).is_dir()))
                .collect(),
        ),
        Err(_) => Ebpf::NoCompiler,
    }
}

fn is_there(need: &Need) -> bool {
    // rustup puts a stand-in for every component on the path, there or not.
    if let (Source::Component { .. }, Some(_), Some(cargo)) = (
        need.source,
        env::var_os("RUSTUP_TOOLCHAIN"),
        env::var_os("CARGO"),
    ) {
        return Path::new(&cargo).with_file_name(need.command).is_file();
    }
    if let Source::Python { version } = need.source {
        return needs::python_directory(need.command, version)
            .is_ok_and(|directory| directory.join("bin").join(need.command).exists());
    }
    on_path(need.command)
}

fn on_path(command: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Where Debian puts commands for root, which may not be on another user's path.
    let for_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(for_root)
        .any(|directory| directory.join(command).is_file())
}
