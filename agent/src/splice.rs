//! The splice: bytes between an application's socket and the agent's go from socket to socket in
//! the kernel, without TCP and IP, where both are on this node.
//!
//! The programs (agent-ebpf) decide who is a member; this module finds out whether the running
//! kernel is fit for it, and switches it on. Where it isn't, the same bytes take the way that they
//! always took, and the reason is in the log and in `ambit_splice_active`.

pub mod btf;
mod cgroup;
mod namespace;
pub mod offsets;
mod outlet;
mod pause;
mod self_test;

pub use outlet::Outlet;

use std::{io, path::PathBuf};

use ambit_common::splice::{Offsets, SpliceSettings};

use crate::capture::{maps, splice::Splice};

/// How the splice behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether it is wanted.
    pub enabled: bool,
    /// The cgroup above all pods and the agent; `None`: the root of the cgroup2 file system.
    pub cgroup: Option<PathBuf>,
    /// Bytes that may wait unread in one direction of a connection, in the kernel's memory.
    pub limit: u32,
    /// The self-test fails, for whoever wants to see what happens then.
    pub fail_self_test: bool,
}

/// Why the splice is off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody asked for it.
    #[error("--splice=off says so")]
    Unwanted,
    /// There is no cgroup2.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The kernel's structs aren't known.
    #[error(transparent)]
    Offsets(#[from] offsets::Error),
    /// The programs can't be used.
    #[error(transparent)]
    Programs(#[from] crate::capture::splice::Error),
    /// A map refused the settings.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The namespace has no cookie.
    #[error("asking for the cookie of the network namespace: {0} (the splice needs Linux 5.15)")]
    Namespace(#[source] io::Error),
    /// This kernel does something in another way than applications expect.
    #[error("self-test: {0}")]
    SelfTest(#[from] self_test::Error),
}

/// Finds what the programs need to know before they are loaded.
///
/// # Errors
/// [`Error`].
pub fn prepare(settings: &Settings) -> Result<(PathBuf, Offsets), Error> {
    if !settings.enabled {
        return Err(Error::Unwanted);
    }
    let cgroup = match &settings.cgroup {
        Some(cgroup) => cgroup.clone(),
        None => cgroup::root()?,
    };
    Ok((cgroup, offsets::of_running_kernel()?))
}

/// Tests the programs with sockets of our own, and lets pods' sockets become members if all is well.
/// Blocks for some milliseconds.
///
/// # Errors
/// [`Error`]; then no socket becomes a member.
pub fn start(splice: &mut Splice, settings: &Settings) -> Result<(), Error> {
    let result = test(splice, settings);
    if result.is_err() {
        splice.detach();
    }
    result
}

fn test(splice: &mut Splice, settings: &Settings) -> Result<(), Error> {
    let values = SpliceSettings {
        namespace: namespace::cookie().map_err(Error::Namespace)?,
        limit: settings.limit,
        ..SpliceSettings::default()
    };
    let tested = self_test::run(splice, values, settings.fail_self_test);
    // Whatever came of it, the test's port is an ordinary one again.
    let enabled = tested.is_ok().into();
    splice.configure(SpliceSettings { enabled, ..values })?;
    tested?;
    outlet::enable(splice.gauge().clone(), settings.limit);
    Ok(())
}
