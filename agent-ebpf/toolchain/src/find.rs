//! Looks for compilers and linkers, and pairs one of each.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Compiler, Error, Kind, Linker, Toolchain};

/// The first compiler that has a linker for it, with the linker whose LLVM is nearest to its own.
pub(crate) fn pair(compilers: &[Compiler], linkers: &[Linker]) -> Result<Toolchain, Error> {
    if compilers.is_empty() {
        return Err(Error::NoCompiler);
    }
    let linker_for = |compiler: &Compiler| {
        linkers
            .iter()
            .filter(|linker| linker.llvm >= compiler.llvm)
            .min_by_key(|linker| linker.llvm)
            .cloned()
    };
    let pair = compilers.iter().find_map(|compiler| {
        Some(Toolchain {
            compiler: compiler.clone(),
            linker: linker_for(compiler)?,
        })
    });
    pair.ok_or_else(|| Error::NoLinker {
        compilers: compilers
            .iter()
            .map(|compiler| (compiler.describe(), compiler.llvm))
            .collect(),
        newest: linkers.iter().map(|linker| linker.llvm).max(),
    })
}

/// The compilers of this machine that could build the programs, in order of preference.
pub(crate) fn compilers() -> Vec<Compiler> {
    let bin = PathBuf::from("/usr/bin");
    let nightly = || {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "rustc"]);
        command
    };
    let distribution = || Command::new(bin.join("rustc"));
    [
        llvm_with_sources(nightly).map(|llvm| Compiler {
            kind: Kind::Nightly,
            llvm,
        }),
        llvm_with_sources(distribution).map(|llvm| Compiler {
            kind: Kind::Distribution { bin: bin.clone() },
            llvm,
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every `bpf-linker` on the path and in Cargo's bin directory that runs.
pub(crate) fn linkers() -> Vec<Linker> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .filter(|candidate| candidate.is_file())
        .collect();
    candidates.dedup();
    candidates
        .into_iter()
        .filter_map(|path| {
            // Its own --version doesn't name the LLVM; LLVM's does, and ends the program at once.
            let mut version = Command::new(&path);
            version.args(["--llvm-args=--version", "--output=/dev/null", "/dev/null"]);
            let llvm = llvm_major(&printed(&mut version)?)?;
            Some(Linker { path, llvm })
        })
        .collect()
}

/// The LLVM version of a rustc, if the sources of `core` are in its sysroot.
fn llvm_with_sources(rustc: impl Fn() -> Command) -> Option<u32> {
    let sysroot = printed(rustc().args(["--print", "sysroot"]))?;
    Path::new(sysroot.trim())
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
        .then(|| printed(rustc().arg("-vV")))
        .flatten()
        .and_then(|version| llvm_major(&version))
}

/// The number after "LLVM version", as rustc (with a colon) and LLVM itself print it.
fn llvm_major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("LLVM version")?;
    let digits = version.trim_start_matches([':', ' ']).split('.').next()?;
    digits.parse().ok()
}

/// What a command printed; `None` if it failed or isn't there.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nightly(llvm: u32) -> Compiler {
        Compiler {
            kind: Kind::Nightly,
            llvm,
        }
    }

    fn debian(llvm: u32) -> Compiler {
        Compiler {
            kind: Kind::Distribution {
                bin: "/usr/bin".into(),
            },
            llvm,
        }
    }

    fn linker(llvm: u32) -> Linker {
        Linker {
            path: format!("/opt/llvm-{llvm}/bpf-linker").into(),
            llvm,
        }
    }

    fn no_linker(compilers: &[(&str, u32)], newest: Option<u32>) -> Result<(Compiler, u32), Error> {
        let compilers = compilers.iter();
        Err(Error::NoLinker {
            compilers: compilers
                .map(|(name, llvm)| (name.to_string(), *llvm))
                .collect(),
            newest,
        })
    }

    #[test]
    fn a_compiler_is_paired_with_a_linker_that_can_read_its_bitcode() {
        let table = [
            (vec![], vec![22], Err(Error::NoCompiler)),
            (
                vec![debian(22)],
                vec![],
                no_linker(&[("/usr/bin/rustc", 22)], None),
            ),
            (
                vec![debian(22)],
                vec![20, 21],
                no_linker(&[("/usr/bin/rustc", 22)], Some(21)),
            ),
            (vec![debian(22)], vec![23, 22], Ok((debian(22), 22))),
            (vec![debian(22)], vec![21, 23], Ok((debian(22), 23))),
            (
                vec![nightly(22), debian(22)],
                vec![22],
                Ok((nightly(22), 22)),
            ),
            // A nightly that has outgrown the linker gives way to the distribution's compiler.
            (
                vec![nightly(23), debian(22)],
                vec![22],
                Ok((debian(22), 22)),
            ),
            (
                vec![nightly(23), debian(22)],
                vec![21],
                no_linker(&[("rustup nightly", 23), ("/usr/bin/rustc", 22)], Some(21)),
            ),
        ];
        for (compilers, linkers, expected) in table {
            let what = format!("{compilers:?} with linkers {linkers:?}");
            let linkers: Vec<Linker> = linkers.into_iter().map(linker).collect();
            let expected = expected.map(|(compiler, llvm)| Toolchain {
                compiler,
                linker: linker(llvm),
            });
            assert_eq!(pair(&compilers, &linkers), expected, "{what}");
        }
    }

    #[test]
    fn llvm_versions_are_read_from_rustc_and_from_llvm() {
        for (text, expected) in [
            ("rustc 1.96.0\nLLVM version: 22.1.8\n", Some(22)),
            ("Debian LLVM version 22.1.8\n  Optimized build.\n", Some(22)),
            ("LLVM (http://llvm.org/):\n  LLVM version 9.0.1\n", Some(9)),
            ("bpf-linker 0.13.0\n", None),
            ("LLVM version: unknown\n", None),
            ("", None),
        ] {
            assert_eq!(llvm_major(text), expected, "{text:?}");
        }
    }
}
