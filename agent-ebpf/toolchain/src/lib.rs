//! Builds the eBPF programs from source with whichever suitable compiler the machine has.
//!
//! Two kinds qualify, tried in this order:
//! 1. a rustup nightly toolchain with the `rust-src` component (the usual way);
//! 2. a distribution's rustc whose sources are in its sysroot (Debian: `rustc-web` and
//!    `rust-web-src`), told by `RUSTC_BOOTSTRAP` to accept `-Z build-std`.
//!
//! Both need `bpf-linker`, linked to an LLVM at least as new as the compiler's own.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target that the programs are compiled for: little-endian, as every node Ambit runs on.
const TARGET: &str = "bpfel-unknown-none";

/// Why the programs could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither kind of compiler was found.
    #[error(
        "no compiler for the eBPF programs: run `cargo xtask setup`, or install a rustup nightly \
         with rust-src, or Debian's rustc-web and rust-web-src"
    )]
    NoCompiler,
    /// `bpf-linker` is not on the path nor in Cargo's bin directory.
    #[error("bpf-linker is missing: run `cargo xtask setup`, or `cargo install bpf-linker`")]
    NoLinker,
    /// The compiler ran and failed; it has printed why.
    #[error("compiling agent-ebpf with {compiler} failed: {status}")]
    Failed {
        /// The compiler that was chosen.
        compiler: String,
        /// How it ended.
        status: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program's path.
        program: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// A compiler that can build the programs, and the linker that goes with it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Debug, Clone)]
enum Compiler {
    /// `rustup run nightly cargo`.
    Nightly,
    /// A distribution's `rustc` with its own `cargo` beside it, or the `cargo` on the path.
    Distribution { rustc: PathBuf, cargo: PathBuf },
}

impl Toolchain {
    /// Looks for a compiler and a linker; quick, installs nothing.
    ///
    /// # Errors
    /// [`Error::NoCompiler`] or [`Error::NoLinker`], each with the cure.
    pub fn find() -> Result<Self, Error> {
        let compiler = find_nightly()
            .or_else(find_distribution)
            .ok_or(Error::NoCompiler)?;
        let linker = find_linker().ok_or(Error::NoLinker)?;
        Ok(Self { compiler, linker })
    }

    /// One line for people: which compiler and which linker.
    #[must_use]
    pub fn describe(&self) -> String {
        let compiler = match &self.compiler {
            Compiler::Nightly => "rustup nightly with rust-src".to_owned(),
            Compiler::Distribution { rustc, .. } => rustc.display().to_string(),
        };
        format!("{compiler}, {}", self.linker.display())
    }

    /// A cargo command that works on the eBPF crate in `source` with this compiler.
    ///
    /// `subcommand` is `build`, `clippy` or the like. The environment of a cargo that may be
    /// running us is taken away, or it would choose the host's compiler and flags.
    #[must_use]
    pub fn cargo(&self, source: &Path, target_dir: &Path, subcommand: &str) -> Command {
        let mut command = match &self.compiler {
            Compiler::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Compiler::Distribution { rustc, cargo } => {
                let mut command = Command::new(cargo);
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        for (name, _) in env::vars_os() {
            if is_inherited_from_cargo(&name) {
                command.env_remove(name);
            }
        }
        if let Compiler::Distribution { rustc, .. } = &self.compiler {
            command.env("RUSTC", rustc);
        }
        let flags = [
            "-Clinker=".to_owned() + &self.linker.to_string_lossy(),
            "-Clink-arg=--btf".to_owned(),
            "-Cdebuginfo=2".to_owned(),
        ];
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
        let status = command.status().map_err(|source| Error::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        if !status.success() {
            return Err(Error::Failed {
                compiler: self.describe(),
                status: status.to_string(),
            });
        }
        Ok(target_dir.join(TARGET).join("release").join(program))
    }
}

/// True for the variables by which an outer cargo would steer the inner one.
fn is_inherited_from_cargo(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    [
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ]
    .contains(&name.as_ref())
        || (name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&&*name))
}

fn find_nightly() -> Option<Compiler> {
    let sysroot =
        printed(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    has_sources(&sysroot).then_some(Compiler::Nightly)
}

fn find_distribution() -> Option<Compiler> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let sysroot = printed(Command::new(&rustc).args(["--print", "sysroot"]))?;
    if !has_sources(&sysroot) {
        return None;
    }
    let beside = PathBuf::from("/usr/bin/cargo");
    let cargo = if beside.exists() {
        beside
    } else {
        env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
    };
    Some(Compiler::Distribution { rustc, cargo })
}

fn has_sources(sysroot: &str) -> bool {
    Path::new(sysroot)
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
}

fn find_linker() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let on_path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&on_path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

/// What a command printed, trimmed; `None` if it failed or isn't there.
fn printed(command: &mut Command) -> Option<String> {
    let output = command
        .env_remove("RUSTC")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
