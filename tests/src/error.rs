//! What can go wrong in a lab, in the words of whoever runs the test.

use std::{fmt, io, path::Path, process::ExitStatus, time::Duration};

/// The result of anything a lab does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A lab couldn't do what was asked.
#[derive(thiserror::Error)]
pub enum Error {
    /// The process isn't root.
    #[error(
        "the lab makes network namespaces, cgroups and mounts and needs root: run it as root \
         (for example with `sudo -E`)"
    )]
    NotRoot,
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted: mount one, or boot with it (most systems do)")]
    NoCgroup2,
    /// A name can't be part of the names of namespaces, cgroups and files.
    #[error("{name:?} can't name a {what}: use 1 to 40 of a-z, 0-9 and -")]
    BadName {
        /// `lab`, `node` or `pod`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// Another pod has the address.
    #[error("pod {pod} can't have {address}: {cause}")]
    Address {
        /// The pod that was to be made.
        pod: String,
        /// The address it wanted.
        address: std::net::IpAddr,
        /// Why it can't have it.
        cause: &'static str,
    },
    /// A file, a mount or a process couldn't be worked on.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path or program.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program couldn't be started at all.
    #[error("can't start `{command}`: {source}{}", if source.kind() == io::ErrorKind::NotFound {
        " (is it installed?)"
    } else {
        ""
    })]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line, with the input it was fed if that says more.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// Something didn't happen in time.
    #[error("{waiting_for} didn't happen within {after:?}: {state}")]
    Timeout {
        /// What was awaited.
        waiting_for: String,
        /// How long.
        after: Duration,
        /// What was there instead.
        state: String,
    },
    /// A program's output isn't what it should be.
    #[error("{what} can't be read: {cause}")]
    Malformed {
        /// The output or file.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Something that must hold at all times doesn't.
    #[error("{must} doesn't hold: {found}")]
    Violated {
        /// What must hold.
        must: &'static str,
        /// What was found instead.
        found: String,
    },
    /// The machine lacks something a feature needs.
    #[error("{0}")]
    Unsupported(String),
}

// A test that returns an error is shown its Debug form: it is to read as well as the other.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    pub(crate) fn path(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        Error::io(format!("{doing} {}", path.display()))
    }

    pub(crate) fn violated(must: &'static str, found: impl ToString) -> Error {
        Error::Violated {
            must,
            found: found.to_string(),
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, cause: impl ToString) -> Error {
        Error::Malformed {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}
