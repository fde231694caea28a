//! Where processes run: a network namespace and a cgroup.

use std::{ffi::OsStr, path::PathBuf, sync::Arc};

use crate::{Capture, Child, Command, Output, Result, ip, lab::Shared, peer};

/// A network namespace with a cgroup: what nodes and pods have in common.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) shared: Arc<Shared>,
    /// `a`, or `a/client`.
    pub(crate) label: String,
    pub(crate) namespace: String,
    pub(crate) cgroup: PathBuf,
}

impl Place {
    /// The name of its network namespace, for `ip -n` and `nsenter --net=/run/netns/<name>`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its cgroup's directory.
    #[must_use]
    pub fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// A command that will run here: in the cgroup before it makes a socket, and in the namespace.
    ///
    /// Mounts stay those of the host: `/sys/class/net` shows the host's interfaces.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.clone(), program.as_ref())
    }

    /// Runs a program to its end, within 60 s.
    ///
    /// # Errors
    /// See [`Command::run`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        self.command(program).args(args).run()
    }

    /// Starts a program and goes on.
    ///
    /// # Errors
    /// See [`Command::spawn`].
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Child> {
        self.command(program).args(args).spawn()
    }

    /// Where one of the lab's own programs is.
    pub(crate) fn own_program(&self, name: &str) -> Result<PathBuf> {
        match &self.shared.programs {
            Some(directory) => Ok(directory.join(name)),
            None => peer::program(name, "ambit-tests"),
        }
    }

    /// Runs a closure on a thread of its own in the network namespace.
    ///
    /// Sockets that it makes stay in the namespace after it returns, but belong to the cgroup of
    /// the calling process. A panic in the closure is passed on.
    ///
    /// # Errors
    /// If the namespace can't be entered.
    pub fn in_namespace<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T> {
        ip::in_namespace(&self.namespace, run)
    }

    /// Starts to capture packets at an interface, by tcpdump; `filter` is a pcap-filter(7).
    ///
    /// # Errors
    /// If tcpdump doesn't start, for example because the filter is wrong.
    pub fn capture(&self, interface: &str, filter: &str) -> Result<Capture> {
        Capture::start(self, interface, filter)
    }
}
