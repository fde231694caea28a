//! The tables of what is needed, and where each comes from.

use std::{env, io, path::PathBuf};

/// A command that must be there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The executable's name.
    pub(super) command: &'static str,
    /// Where it comes from.
    pub(super) source: Source,
    /// What it is needed for, for the list of things to install by hand.
    pub(super) why: &'static str,
}

/// Where a command comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A Debian package, and the system service that it would start at boot, if any.
    Debian {
        package: &'static str,
        service: Option<&'static str>,
    },
    /// A crate of the same name, in a version known to build with the workspace's compiler.
    Crate { version: &'static str },
    /// A component of the rustup toolchain that builds the workspace.
    Component { name: &'static str },
    /// A Python package of the same name, which pipx puts beside the build.
    Python { version: &'static str },
}

/// Everything but the eBPF compiler and linker.
pub(super) const NEEDS: &[Need] = &[
    debian("ip", "iproute2", "the lab's namespaces, links and routes"),
    debian("nft", "nftables", "checks of the agent's rules"),
    debian(
        "iptables",
        "iptables",
        "kube-proxy's and sidecars' rules in the lab",
    ),
    debian("setpriv", "util-linux", "the uid of sidecars in the lab"),
    debian("tcpdump", "tcpdump", "captures between the lab's nodes"),
    debian("sysctl", "procps", "settings of the lab's nodes"),
    debian("faketime", "faketime", "clocks that are set, in the lab"),
    daemon(
        "nginx",
        "nginx-light",
        "nginx",
        "a real HTTP server in a pod",
    ),
    debian("curl", "curl", "a real HTTP client in a pod"),
    debian(
        "openssl",
        "openssl",
        "odd certificates, and a look at the agent's",
    ),
    debian("wrk", "wrk", "HTTP load"),
    debian("h2load", "nghttp2-client", "HTTP/2 load"),
    daemon("iperf3", "iperf3", "iperf3", "bulk load"),
    daemon(
        "redis-server",
        "redis-server",
        "redis-server",
        "a real server whose clients keep connections",
    ),
    daemon(
        "pg_ctlcluster",
        "postgresql",
        "postgresql",
        "a real server with a benchmark of its own",
    ),
    daemon("haproxy", "haproxy", "haproxy", "a sidecar to compare with"),
    debian(
        "chromium-headless-shell",
        "chromium-headless-shell",
        "looking at the web page",
    ),
    debian("kubectl", "kubernetes-client", "building the manifests"),
    debian("pipx", "pipx", "installing kubernetes-validate"),
    Need {
        command: "kubernetes-validate",
        source: Source::Python { version: "1.37.0" },
        why: "checking the manifests",
    },
    Need {
        command: "cargo-nextest",
        source: Source::Crate { version: "0.9.143" },
        why: "running the tests",
    },
    Need {
        command: "cargo-deny",
        source: Source::Crate { version: "0.20.2" },
        why: "checking the dependencies",
    },
    Need {
        command: "cargo-fmt",
        source: Source::Component { name: "rustfmt" },
        why: "checking the format",
    },
    Need {
        command: "cargo-clippy",
        source: Source::Component { name: "clippy" },
        why: "checking the lints",
    },
];

/// A compiler with the sources of `core`, and its clippy, as Debian packages.
pub(super) const COMPILER_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "rust-web-clippy"];

/// The release of bpf-linker that is installed where none is.
pub(super) const BPF_LINKER_VERSION: &str = "0.13.0";

/// The Debian packages against which bpf-linker is linked.
pub(super) fn llvm_packages(llvm: u32) -> Vec<String> {
    vec![
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
    ]
}

/// Where pipx puts a package: beside the directories of Cargo's profiles, where tests find it from
/// their own path, and on nobody's path of commands.
///
/// # Errors
/// The operating system doesn't say where the running program is.
pub(super) fn python_directory(name: &str, version: &str) -> io::Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.ancestors().nth(2).unwrap_or(&own);
    Ok(target.join("python").join(format!("{name}-{version}")))
}

/// Where Debian's packages put an LLVM.
pub(super) fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

const fn debian(command: &'static str, package: &'static str, why: &'static str) -> Need {
    let service = None;
    Need {
        command,
        source: Source::Debian { package, service },
        why,
    }
}

const fn daemon(
    command: &'static str,
    package: &'static str,
    service: &'static str,
    why: &'static str,
) -> Need {
    let service = Some(service);
    Need {
        command,
        source: Source::Debian { package, service },
        why,
    }
}
