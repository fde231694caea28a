//! Decides what to install, from facts alone.

use super::needs::{self, BPF_LINKER_VERSION, COMPILER_PACKAGES, Need, Source};

/// What was found on the machine.
#[derive(Debug)]
pub(super) struct Facts {
    /// The commands that aren't there.
    pub(super) missing: Vec<&'static Need>,
    /// How far the means to build the eBPF programs are there.
    pub(super) ebpf: Ebpf,
    /// Debian packages can be installed: apt-get is there, and root's rights are.
    pub(super) apt: bool,
    /// rustup is there; whether it can fetch shows only when it tries.
    pub(super) rustup: bool,
    /// The steps that were taken, whatever came of them.
    pub(super) tried: Vec<Step>,
}

/// How far the means to build the eBPF programs are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ebpf {
    /// Compiler, clippy and linker.
    Ready,
    /// No compiler with the sources of `core`.
    NoCompiler,
    /// Compilers, in order of preference, but no linker for any of them: the major version of
    /// each one's LLVM, and whether that LLVM's libraries are there to link with.
    NoLinker(Vec<(u32, bool)>),
    /// All but clippy, which rustup or the distribution has.
    NoClippy { rustup: bool },
}

/// One thing to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Debian's lists of packages.
    AptUpdate,
    /// Debian packages.
    Apt(Vec<String>),
    /// A nightly compiler with the sources of `core`, and clippy.
    RustupNightly,
    /// A component of the toolchain that builds the workspace.
    RustupComponent(&'static str),
    /// A command published as a crate.
    Crate {
        name: &'static str,
        version: &'static str,
    },
    /// A command published as a Python package.
    Python {
        name: &'static str,
        version: &'static str,
    },
    /// bpf-linker, linked to the LLVM of this major version.
    BpfLinker { llvm: u32 },
}

/// What to do next, in order. Empty when nothing is missing, or nothing is left to try.
pub(super) fn steps(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    let packages = packages(&facts.missing);
    if !packages.is_empty() {
        steps.push(Step::Apt(packages));
    }
    for need in &facts.missing {
        match need.source {
            Source::Debian { .. } => {}
            Source::Crate { version } => steps.push(Step::Crate {
                name: need.command,
                version,
            }),
            Source::Component { name } => steps.push(Step::RustupComponent(name)),
            Source::Python { version } => steps.push(Step::Python {
                name: need.command,
                version,
            }),
        }
    }
    // Of the ways to an eBPF toolchain, the first that hasn't been tried.
    let way = ways(&facts.ebpf).into_iter().find_map(|way| {
        let possible: Vec<Step> = way
            .into_iter()
            .filter(|step| is_possible(step, facts))
            .collect();
        (!possible.is_empty()).then_some(possible)
    });
    steps.extend(way.unwrap_or_default());
    steps.retain(|step| is_possible(step, facts));
    let installs = steps.iter().any(|step| matches!(step, Step::Apt(_)));
    if installs && !facts.tried.contains(&Step::AptUpdate) {
        steps.insert(0, Step::AptUpdate);
    }
    steps
}

/// What a person must install, one line each: everything that is still missing.
pub(super) fn by_hand(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for need in &facts.missing {
        let how = match need.source {
            Source::Debian { package, .. } => format!("apt-get install {package}"),
            Source::Crate { version } => {
                format!("cargo install --locked {}@{version}", need.command)
            }
            Source::Component { name } => format!("rustup component add {name}"),
            Source::Python { version } => {
                format!("pipx, with which `cargo xtask setup` installs version {version}")
            }
        };
        lines.push(format!("{} ({}): {how}", need.command, need.why));
    }
    let compiler = COMPILER_PACKAGES.join(" ");
    lines.extend(match &facts.ebpf {
        Ebpf::Ready => None,
        Ebpf::NoCompiler => Some(format!(
            "a compiler for the eBPF programs: apt-get install {compiler}; or rustup toolchain \
             install nightly --component rust-src,clippy"
        )),
        Ebpf::NoLinker(compilers) => Some(format!(
            "bpf-linker {BPF_LINKER_VERSION} linked to LLVM {}: a release binary, or cargo \
             install bpf-linker, as https://github.com/aya-rs/bpf-linker says",
            compilers
                .iter()
                .map(|(llvm, _)| llvm.to_string())
                .collect::<Vec<_>>()
                .join(" or ")
        )),
        Ebpf::NoClippy { rustup: true } => {
            Some("clippy for eBPF: rustup component add --toolchain nightly clippy".to_owned())
        }
        Ebpf::NoClippy { rustup: false } => {
            Some(format!("clippy for eBPF: apt-get install {compiler}"))
        }
    });
    lines
}

/// The ways to complete the eBPF toolchain, best first, each as its steps in order.
///
/// Debian's compiler comes before a nightly: its LLVM is packaged too, so that bpf-linker can be
/// linked to it, while the LLVM of today's nightly may not be had anywhere.
fn ways(ebpf: &Ebpf) -> Vec<Vec<Step>> {
    let debian = vec![Step::Apt(
        COMPILER_PACKAGES.iter().map(ToString::to_string).collect(),
    )];
    let nightly = vec![Step::RustupNightly];
    match ebpf {
        Ebpf::Ready => Vec::new(),
        Ebpf::NoCompiler => vec![debian, nightly],
        Ebpf::NoLinker(compilers) => compilers
            .iter()
            .map(|&(llvm, libraries)| {
                let link = Step::BpfLinker { llvm };
                if libraries {
                    vec![link]
                } else {
                    vec![Step::Apt(needs::llvm_packages(llvm)), link]
                }
            })
            // Last, another compiler, whose LLVM can perhaps be had.
            .chain([debian])
            .collect(),
        Ebpf::NoClippy { rustup: true } => vec![nightly],
        Ebpf::NoClippy { rustup: false } => vec![debian],
    }
}

fn is_possible(step: &Step, facts: &Facts) -> bool {
    let means = match step {
        Step::AptUpdate | Step::Apt(_) => facts.apt,
        Step::RustupNightly | Step::RustupComponent(_) => facts.rustup,
        Step::Crate { .. } | Step::Python { .. } | Step::BpfLinker { .. } => true,
    };
    means && !facts.tried.contains(step)
}

fn packages(missing: &[&Need]) -> Vec<String> {
    missing
        .iter()
        .filter_map(|need| match need.source {
            Source::Debian { package, .. } => Some(package.to_owned()),
            Source::Crate { .. } | Source::Component { .. } | Source::Python { .. } => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
