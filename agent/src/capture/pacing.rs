//! The sockops program, which takes pacing off connections between pods and the agent.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use ambit_common::name;
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, ProgramError, SockOps},
};
use rustix::fs::statfs;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Why the program isn't attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no such tree.
    #[error("no cgroup v2 at {path} nor at {path}/unified (--cgroup names another place)")]
    NoCgroup {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It can't be opened.
    #[error("opening {path}: {source}")]
    Open {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused the program.
    #[error("eBPF program {}: {_0}", name::CONNECTED)]
    Program(#[from] ProgramError),
}

/// Has the kernel run the program for sockets of a cgroup and those below it, for as long as the
/// object lives.
///
/// # Errors
/// [`Error`].
pub(super) fn attach(object: &mut Ebpf, cgroup: &Path) -> Result<(), Error> {
    let path = version_2(cgroup)?;
    let directory = File::open(&path).map_err(|source| Error::Open { path, source })?;
    let program: &mut SockOps = object
        .program_mut(name::CONNECTED)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load()?;
    // A link always shares the cgroup with other programs, whatever the mode.
    program.attach(directory, CgroupAttachMode::Single)?;
    Ok(())
}

/// The cgroup itself, or the tree beside cgroup v1's where both are mounted.
fn version_2(cgroup: &Path) -> Result<PathBuf, Error> {
    [cgroup.to_owned(), cgroup.join("unified")]
        .into_iter()
        .find(|path| {
            statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2_MAGIC))
        })
        .ok_or_else(|| Error::NoCgroup {
            path: cgroup.to_owned(),
        })
}
