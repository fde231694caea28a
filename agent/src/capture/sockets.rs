//! The sockops program, which is told of the connections of the node's pods.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use ambit_common::name;
use aya::{
    Ebpf,
    pin::PinError,
    programs::{
        CgroupAttachMode, ProgramError, SockOps,
        links::{FdLink, LinkError},
    },
};
use rustix::fs::statfs;

use super::loader::program;

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
    /// It can't be made to stay.
    #[error("eBPF program {}: {_0}", name::CONNECTED)]
    Link(#[from] LinkError),
    /// It can't be made to stay.
    #[error("eBPF program {}: {_0}", name::CONNECTED)]
    Pin(#[from] PinError),
    /// The kernel refused the program.
    #[error("eBPF program {}: {_0}", name::CONNECTED)]
    Program(#[from] ProgramError),
}

/// Has the kernel run the program for sockets of a cgroup and those below it, in place of an earlier
/// agent's. It outlives the agent: connections that close meanwhile are told to the next.
///
/// # Errors
/// [`Error`].
pub(super) fn attach(object: &mut Ebpf, cgroup: &Path, links: &Path) -> Result<(), Error> {
    let path = version_2(cgroup)?;
    let directory = File::open(&path).map_err(|source| Error::Open { path, source })?;
    let program: &mut SockOps = program(object, name::CONNECTED)?;
    program.load()?;
    // A link always shares the cgroup with other programs, whatever the mode.
    let link = program.attach(directory, CgroupAttachMode::Single)?;
    let link: FdLink = program.take_link(link)?.try_into()?;
    let pin = links.join(name::CONNECTED);
    // An earlier agent's.
    let _ = fs::remove_file(&pin);
    link.pin(&pin)?;
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
