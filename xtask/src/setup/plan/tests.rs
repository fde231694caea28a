use super::{super::needs::NEEDS, *};

/// A machine that has nothing but what `facts` changes: apt and rustup are there.
fn facts(missing: &[&str], ebpf: Ebpf) -> Facts {
    let missing: Vec<&'static Need> = NEEDS
        .iter()
        .filter(|need| missing.contains(&need.command))
        .collect();
    Facts {
        missing,
        ebpf,
        apt: true,
        rustup: true,
        tried: Vec::new(),
    }
}

fn apt(packages: &[&str]) -> Step {
    Step::Apt(packages.iter().map(ToString::to_string).collect())
}

fn debian_compiler() -> Step {
    apt(&["rustc-web", "rust-web-src", "rust-web-clippy"])
}

fn llvm(version: u32) -> Step {
    let llvm = format!("llvm-{version}-dev");
    let polly = format!("libpolly-{version}-dev");
    apt(&[&llvm, &polly, "libzstd-dev", "zlib1g-dev"])
}

#[test]
fn each_round_installs_what_is_missing_and_can_be_had() {
    let update = || Step::AptUpdate;
    let link = |llvm| Step::BpfLinker { llvm };
    let table = [
        ("nothing is missing", facts(&[], Ebpf::Ready), vec![]),
        (
            "packages come in one go, after the lists",
            facts(&["wrk", "nginx"], Ebpf::Ready),
            vec![update(), apt(&["nginx-light", "wrk"])],
        ),
        (
            "crates and components need no package lists",
            facts(&["cargo-deny", "cargo-fmt"], Ebpf::Ready),
            vec![
                Step::Crate {
                    name: "cargo-deny",
                    version: "0.20.2",
                },
                Step::RustupComponent("rustfmt"),
            ],
        ),
        (
            "a Python package comes after pipx, which installs it",
            facts(&["kubernetes-validate", "pipx"], Ebpf::Ready),
            vec![
                update(),
                apt(&["pipx"]),
                Step::Python {
                    name: "kubernetes-validate",
                    version: "1.37.0",
                },
            ],
        ),
        (
            "a fresh Debian gets Debian's compiler, and no linker before its LLVM is known",
            facts(&["wrk"], Ebpf::NoCompiler),
            vec![update(), apt(&["wrk"]), debian_compiler()],
        ),
        (
            "the linker follows with the compiler's LLVM",
            facts(&[], Ebpf::NoLinker(vec![(22, false)])),
            vec![update(), llvm(22), link(22)],
        ),
        (
            "LLVM's libraries are there already",
            facts(&[], Ebpf::NoLinker(vec![(22, true)])),
            vec![link(22)],
        ),
        (
            "lists are fetched once",
            Facts {
                tried: vec![update()],
                ..facts(&["wrk"], Ebpf::Ready)
            },
            vec![apt(&["wrk"])],
        ),
        (
            "no apt: a nightly",
            Facts {
                apt: false,
                ..facts(&["wrk"], Ebpf::NoCompiler)
            },
            vec![Step::RustupNightly],
        ),
        (
            "no such Debian package: a nightly",
            Facts {
                tried: vec![update(), debian_compiler()],
                ..facts(&[], Ebpf::NoCompiler)
            },
            vec![Step::RustupNightly],
        ),
        (
            "no apt: a linker with whatever LLVM its own build finds",
            Facts {
                apt: false,
                ..facts(&[], Ebpf::NoLinker(vec![(23, false)]))
            },
            vec![link(23)],
        ),
        (
            "no LLVM for the nightly: another compiler",
            Facts {
                tried: vec![update(), llvm(23), link(23)],
                ..facts(&[], Ebpf::NoLinker(vec![(23, false)]))
            },
            vec![debian_compiler()],
        ),
        (
            "and a linker for that one",
            Facts {
                tried: vec![update(), llvm(23), link(23), debian_compiler()],
                ..facts(&[], Ebpf::NoLinker(vec![(23, false), (22, false)]))
            },
            vec![llvm(22), link(22)],
        ),
        (
            "clippy from where the compiler came: rustup",
            facts(&[], Ebpf::NoClippy { rustup: true }),
            vec![Step::RustupNightly],
        ),
        (
            "clippy from where the compiler came: Debian",
            facts(&[], Ebpf::NoClippy { rustup: false }),
            vec![update(), debian_compiler()],
        ),
        (
            "neither apt nor rustup",
            Facts {
                apt: false,
                rustup: false,
                ..facts(&["wrk", "cargo-fmt"], Ebpf::NoCompiler)
            },
            vec![],
        ),
    ];
    for (what, facts, expected) in table {
        assert_eq!(steps(&facts), expected, "{what}");
    }
}

#[test]
fn a_step_is_not_tried_again_even_if_it_did_not_help() {
    let all: Vec<&str> = NEEDS.iter().map(|need| need.command).collect();
    for ebpf in [
        || Ebpf::NoCompiler,
        || Ebpf::NoLinker(vec![(23, false), (22, true)]),
        || Ebpf::NoClippy { rustup: true },
    ] {
        let mut tried: Vec<Step> = Vec::new();
        loop {
            let facts = Facts {
                tried: tried.clone(),
                ..facts(&all, ebpf())
            };
            let next = steps(&facts);
            if next.is_empty() {
                break;
            }
            for step in next {
                assert!(!tried.contains(&step), "{step:?} comes again");
                tried.push(step);
            }
        }
    }
}

#[test]
fn what_is_missing_is_listed_with_its_cure() {
    let table = [
        (facts(&[], Ebpf::Ready), ""),
        (
            facts(&["wrk", "cargo-nextest"], Ebpf::Ready),
            "wrk (HTTP load): apt-get install wrk\n\
             cargo-nextest (running the tests): cargo install --locked cargo-nextest@0.9.143",
        ),
        (
            facts(&["kubernetes-validate"], Ebpf::Ready),
            "kubernetes-validate (checking the manifests): pipx, with which `cargo xtask setup` \
             installs version 1.37.0",
        ),
        (
            facts(&[], Ebpf::NoCompiler),
            "a compiler for the eBPF programs: apt-get install rustc-web rust-web-src \
             rust-web-clippy; or rustup toolchain install nightly --component rust-src,clippy",
        ),
        (
            facts(&[], Ebpf::NoLinker(vec![(23, false), (22, false)])),
            "bpf-linker 0.13.0 linked to LLVM 23 or 22: a release binary, or cargo install \
             bpf-linker, as https://github.com/aya-rs/bpf-linker says",
        ),
    ];
    for (facts, expected) in table {
        assert_eq!(by_hand(&facts).join("\n"), expected);
    }
}
