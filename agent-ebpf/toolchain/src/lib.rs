//! Builds the eBPF programs from source with whichever suitable compiler the machine has.
//!
//! Two kinds qualify, tried in this order:
//! 1. a rustup nightly toolchain with the `rust-src` component (the usual way);
//! 2. a distribution's rustc whose sources are in its sysroot (Debian: `rustc-web` and
//!    `rust-web-src`), told by `RUSTC_BOOTSTRAP` to accept `-Z build-std`.
//!
//! Both need `bpf-linker`, linked to an LLVM at least as new as the compiler's own: the compiler
//! hands it bitcode, which an older LLVM can't be trusted to read.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

mod find;

/// The target that the programs are compiled for: little-endian, as every node Ambit runs on.
const TARGET: &str = "bpfel-unknown-none";

/// Why the programs could not be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither kind of compiler was found.
    #[error(
        "no compiler for the eBPF programs: run `cargo xtask setup`, or install a rustup nightly \
         with rust-src, or Debian's rustc-web and rust-web-src"
    )]
    NoCompiler,
    /// No `bpf-linker` that runs and is new enough is on the path or in Cargo's bin directory.
    #[error(
        "no bpf-linker for {} ({}): run `cargo xtask setup`, or install one linked to that LLVM",
        needed_by(compilers),
        newest.map_or_else(|| "none was found".to_owned(), |llvm| format!("the newest found has LLVM {llvm}"))
    )]
    NoLinker {
        /// The compilers that were found, by preference, each with the major version of its LLVM.
        compilers: Vec<(String, u32)>,
        /// The newest LLVM among the linkers that are there.
        newest: Option<u32>,
    },
    /// A program could not be started, for the operating system's reason given.
    #[error("cannot run {program}: {reason}")]
    Spawn {
        /// The program's path.
        program: String,
        /// The operating system's words.
        reason: String,
    },
    /// The compiler ran and failed; it has printed why.
    #[error("compiling agent-ebpf with {toolchain} failed: {status}")]
    Failed {
        /// The compiler and the linker that were chosen.
        toolchain: String,
        /// How the compiler ended.
        status: String,
    },
}

/// A compiler that can build the programs, and the linker that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    compiler: Compiler,
    linker: Linker,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Compiler {
    kind: Kind,
    /// The major version of its LLVM.
    llvm: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `rustup run nightly cargo`.
    Nightly,
    /// The compiler of this directory, with the cargo beside it or the one that runs us.
    Distribution { bin: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Linker {
    path: PathBuf,
    /// The major version of the LLVM that it is linked to.
    llvm: u32,
}

impl Toolchain {
    /// Looks for a compiler and a linker; takes about 0.1 s and installs nothing.
    ///
    /// # Errors
    /// [`Error::NoCompiler`] or [`Error::NoLinker`], each with the cure.
    pub fn find() -> Result<Self, Error> {
        find::pair(&find::compilers(), &find::linkers())
    }

    /// One line for people: which compiler and which linker.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "{}, {}",
            self.compiler.describe(),
            self.linker.path.display()
        )
    }

    /// Whether rustup has the compiler, and not the distribution.
    #[must_use]
    pub fn is_rustup(&self) -> bool {
        self.compiler.kind == Kind::Nightly
    }

    /// Whether [`Toolchain::cargo`] can be asked for `clippy`; a build needs none.
    #[must_use]
    pub fn has_clippy(&self) -> bool {
        match &self.compiler.kind {
            Kind::Nightly => Command::new("rustup")
                .args(["which", "--toolchain", "nightly", "cargo-clippy"])
                .output()
                .is_ok_and(|output| output.status.success()),
            Kind::Distribution { bin } => ["cargo-clippy", "clippy-driver"]
                .iter()
                .all(|program| bin.join(program).is_file()),
        }
    }

    /// A cargo command that works on the eBPF crate in `source` with this compiler.
    ///
    /// `subcommand` is `build`, `check` or `clippy`. The variables by which an outer cargo or the
    /// caller steers builds for the host are taken away: they would choose another compiler,
    /// other flags or another target directory.
    #[must_use]
    pub fn cargo(&self, source: &Path, target_dir: &Path, subcommand: &str) -> Command {
        let mut command = match &self.compiler.kind {
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            // Cargo would look for cargo-clippy on the path and find another compiler's.
            Kind::Distribution { bin } if subcommand == "clippy" => {
                Command::new(bin.join("cargo-clippy"))
            }
            Kind::Distribution { bin } => Command::new(cargo_for(bin)),
        };
        for (name, _) in env::vars_os() {
            if steers_host_build(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        if let Kind::Distribution { bin } = &self.compiler.kind {
            command
                .env("CARGO", cargo_for(bin))
                .env("RUSTC", bin.join("rustc"))
                .env("RUSTC_BOOTSTRAP", "1");
        }
        let linker = format!("-Clinker={}", self.linker.path.display());
        let flags = [linker.as_str(), "-Clink-arg=--btf", "-Cdebuginfo=2"];
        command
            .arg(subcommand)
            .args(["--release", "--target", TARGET, "-Zbuild-std=core"])
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", target_dir)
            .current_dir(source);
        command
    }

    /// Compiles the crate in `source` and returns the path of the object named `program`.
    ///
    /// # Errors
    /// [`Error::Spawn`] or [`Error::Failed`]; the compiler's own messages went to stderr.
    pub fn build(&self, source: &Path, target_dir: &Path, program: &str) -> Result<PathBuf, Error> {
        let mut command = self.cargo(source, target_dir, "build");
        // A build script's stdout is read by cargo: everything for people goes to stderr.
        command.stdout(Stdio::null());
        let status = command.status().map_err(|error| Error::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            reason: error.to_string(),
        })?;
        if !status.success() {
            return Err(Error::Failed {
                toolchain: self.describe(),
                status: status.to_string(),
            });
        }
        Ok(target_dir.join(TARGET).join("release").join(program))
    }
}

impl Compiler {
    fn describe(&self) -> String {
        match &self.kind {
            Kind::Nightly => "rustup nightly".to_owned(),
            Kind::Distribution { bin } => bin.join("rustc").display().to_string(),
        }
    }
}

/// "rustup nightly (LLVM 23) or /usr/bin/rustc (LLVM 22)".
fn needed_by(compilers: &[(String, u32)]) -> String {
    let names = compilers.iter();
    names
        .map(|(name, llvm)| format!("{name} (LLVM {llvm})"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The distribution's own cargo, or else the one that runs us, which is near enough in version.
fn cargo_for(bin: &Path) -> PathBuf {
    let beside = bin.join("cargo");
    if beside.is_file() {
        return beside;
    }
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// True for the variables that decide how the host's crates are built. Cargo's settings for the
/// network, registries and terminal stay.
fn steers_host_build(name: &str) -> bool {
    name == "CARGO"
        || name == "RUSTUP_TOOLCHAIN"
        || [
            "RUSTC",
            "RUSTDOC",
            "RUSTFLAGS",
            "CARGO_BUILD_",
            "CARGO_CFG_",
            "CARGO_ENCODED_",
            "CARGO_FEATURE_",
            "CARGO_INCREMENTAL",
            "CARGO_MAKEFLAGS",
            "CARGO_MANIFEST_",
            "CARGO_PKG_",
            "CARGO_PROFILE_",
            "CARGO_TARGET_",
            "CLIPPY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::steers_host_build;

    #[test]
    fn an_outer_cargo_does_not_steer_the_ebpf_build() {
        for (name, removed) in [
            ("CARGO", true),
            ("RUSTC", true),
            ("RUSTC_WORKSPACE_WRAPPER", true),
            ("RUSTUP_TOOLCHAIN", true),
            ("RUSTFLAGS", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_CFG_TARGET_ARCH", true),
            ("CARGO_PROFILE_RELEASE_LTO", true),
            ("CARGO_HOME", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_HTTP_CAINFO", false),
            ("CARGO_REGISTRIES_CRATES_IO_PROTOCOL", false),
            ("RUSTUP_HOME", false),
            ("PATH", false),
        ] {
            assert_eq!(steers_host_build(name), removed, "{name}");
        }
    }
}
