//! The programs of the pods' cgroup: one is told of connections, the others have a pod connect to a service's
//! endpoint.

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
        CgroupAttachMode, CgroupSockAddr, ProgramError, SockOps,
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
    /// The kernel refused a program.
    #[error("eBPF program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's reason.
        source: ProgramError,
    },
    /// It can't be made to stay.
    #[error("eBPF program {program}: {source}")]
    Link {
        /// Its name.
        program: &'static str,
        /// Why.
        source: LinkError,
    },
    /// It can't be made to stay.
    #[error("eBPF program {program}: {source}")]
    Pin {
        /// Its name.
        program: &'static str,
        /// The kernel's reason.
        source: PinError,
    },
}

/// The cgroup below which the pods are, and where links are pinned. The kernel runs the programs for its
/// sockets and those of cgroups below it, in place of an earlier agent's. They outlive the agent.
pub(super) struct Cgroup<'a> {
    directory: File,
    links: &'a Path,
}

impl<'a> Cgroup<'a> {
    /// # Errors
    /// [`Error`]: there is no such cgroup.
    pub(super) fn open(cgroup: &Path, links: &'a Path) -> Result<Self, Error> {
        let path = version_2(cgroup)?;
        let directory = File::open(&path).map_err(|source| Error::Open { path, source })?;
        Ok(Self { directory, links })
    }

    /// Has connections told: those that close while no agent is there, to the next.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn attach_connected(&self, object: &mut Ebpf) -> Result<(), Error> {
        let link = program(object, name::CONNECTED).and_then(|program: &mut SockOps| {
            program.load()?;
            // A link always shares the cgroup with other programs, whatever the mode.
            let link = program.attach(&self.directory, CgroupAttachMode::Single)?;
            program.take_link(link)
        });
        self.pin(name::CONNECTED, link)
    }

    /// Has pods connect to endpoints of services.
    ///
    /// # Errors
    /// [`Error`]. Then those that are attached already change nothing, as long as [`name::CONNECT4`] and
    /// [`name::CONNECT6`] aren't.
    pub(super) fn attach_balancers(&self, object: &mut Ebpf) -> Result<(), Error> {
        for name in name::BALANCERS {
            let link = program(object, name).and_then(|program: &mut CgroupSockAddr| {
                program.load()?;
                let link = program.attach(&self.directory, CgroupAttachMode::Single)?;
                program.take_link(link)
            });
            self.pin(name, link)?;
        }
        Ok(())
    }

    fn pin(
        &self,
        program: &'static str,
        link: Result<impl TryInto<FdLink, Error = LinkError>, ProgramError>,
    ) -> Result<(), Error> {
        let link = link.map_err(|source| Error::Program { program, source })?;
        let link = link
            .try_into()
            .map_err(|source| Error::Link { program, source })?;
        let pin = self.links.join(program);
        // An earlier agent's.
        let _ = fs::remove_file(&pin);
        link.pin(&pin)
            .map_err(|source| Error::Pin { program, source })?;
        Ok(())
    }
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
