//! The programs of the splice: loading and attaching them, and their maps.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use ambit_common::{
    counter::SpliceCounter,
    name,
    splice::{End, EndKey, SpliceSettings},
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, SkStorage, SockHash},
    pin::PinError,
    programs::{
        CgroupAttachMode, Program, ProgramError, RawTracePoint, RawTracePointRunOptions, SkMsg,
        SockOps, TestRun,
        links::{FdLink, LinkError},
    },
};

use super::maps::{self, refused, take};

/// Why the splice can't be used on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a program.
    #[error("eBPF program {program}: {source} (the splice needs Linux 5.15 and CAP_PERFMON)")]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's reason, with the verifier's words.
        source: ProgramError,
    },
    /// A map can't be used.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The cgroup can't be used.
    #[error("attaching to cgroup {path}: {source} (--cgroup names the one above all pods)")]
    Cgroup {
        /// The cgroup's directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A link or program can't be pinned.
    #[error("pinning for the splice: {0}")]
    Pin(#[source] io::Error),
}

/// The splice's programs, attached, and its maps.
pub struct Splice {
    settings: Array<MapData, SpliceSettings>,
    addresses: HashMap<MapData, EndKey, u64>,
    gauge: Gauge,
    links: PathBuf,
}

/// Reads the splice's counters.
pub struct SpliceCounters(PerCpuArray<MapData, u64>);

/// Tells how much a member has to read.
#[derive(Clone)]
pub struct Gauge(Arc<(SkStorage<MapData, End>, RawTracePoint)>);

impl Splice {
    /// Loads the programs and attaches them: to the map of members, and to a cgroup, in place of an
    /// earlier agent's. Both outlive the agent.
    ///
    /// # Errors
    /// [`Error`]; then nothing new is attached to the cgroup.
    pub(super) fn attach(object: &mut Ebpf, links: &Path, cgroup: &Path) -> Result<Self, Error> {
        let splice = Self {
            settings: take(object, name::SPLICE_SETTINGS)?,
            addresses: take(object, name::SPLICE_ADDRESSES)?,
            gauge: Gauge::load(object, links)?,
            links: links.to_owned(),
        };
        let members: SockHash<MapData, EndKey> = take(object, name::SPLICE_SOCKETS)?;
        let send: &mut SkMsg = program(object, name::SEND)?;
        let attached = send
            .load()
            .and_then(|()| send.attach(members.fd()))
            .and_then(|id| send.take_link(id));
        // Dropping it would detach the program, which must outlive the agent.
        std::mem::forget(attached.map_err(failed(name::SEND))?);

        let of_cgroup = |source| Error::Cgroup {
            path: cgroup.to_owned(),
            source,
        };
        let directory = File::open(cgroup).map_err(of_cgroup)?;
        let events: &mut SockOps = program(object, name::SOCKET_EVENTS)?;
        events.load().map_err(failed(name::SOCKET_EVENTS))?;
        let link = events
            // A link always lets other programs be beside it, and refuses to be told so.
            .attach(directory, CgroupAttachMode::Single)
            .and_then(|id| events.take_link(id))
            .map_err(|error| of_cgroup(io::Error::other(error)))?;
        let link = FdLink::try_from(link)
            .map_err(|error: LinkError| Error::Pin(io::Error::other(error)))?;
        pin_over(link, links)?;
        Ok(splice)
    }

    /// Changes the settings.
    ///
    /// # Errors
    /// [`maps::Error::Refused`].
    pub fn configure(&mut self, settings: SpliceSettings) -> Result<(), maps::Error> {
        self.settings
            .set(0, settings, 0)
            .map_err(refused(name::SPLICE_SETTINGS))
    }

    /// What tells how much a member has to read.
    #[must_use]
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Whether the socket that had a key is still entered as a member.
    #[must_use]
    pub fn has_member(&self, key: &EndKey) -> bool {
        self.addresses.get(key, 0).is_ok()
    }

    /// Takes the cgroup's program away: no socket becomes a member any more.
    pub fn detach(&self) {
        detach(&self.links);
    }
}

impl SpliceCounters {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, maps::Error> {
        take(object, name::SPLICE_COUNTERS).map(Self)
    }

    /// Every counter with its name, summed over the CPUs. One that can't be read is left out.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        (0_u32..)
            .zip(SpliceCounter::ALL)
            .filter_map(|(index, counter)| {
                let values = self.0.get(&index, 0).ok()?;
                Some((counter.name(), values.iter().sum()))
            })
            .collect()
    }
}

impl Gauge {
    fn load(object: &mut Ebpf, directory: &Path) -> Result<Self, Error> {
        let ends = take(object, name::SPLICE_ENDS)?;
        let queued: &mut RawTracePoint = program(object, name::QUEUED)?;
        queued.load().map_err(failed(name::QUEUED))?;
        // A handle of its own is only had by way of a pin.
        let pin = directory.join(name::QUEUED);
        let _ = fs::remove_file(&pin);
        queued.pin(&pin).map_err(pinning)?;
        let queued = RawTracePoint::from_pin(&pin).map_err(failed(name::QUEUED));
        fs::remove_file(&pin).map_err(Error::Pin)?;
        Ok(Self(Arc::new((ends, queued?))))
    }

    /// What the programs keep with a socket of this process; `None`: nothing.
    #[must_use]
    pub fn end(&self, socket: &impl AsRawFd) -> Option<End> {
        match self.0.0.get(socket, 0) {
            Ok(end) => Some(end),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                tracing::debug!("asking for a socket's end of the splice: {error}");
                None
            }
        }
    }

    /// Bytes that the socket with that address in the kernel was given past TCP and hasn't read.
    #[must_use]
    pub fn queued(&self, address: u64) -> u32 {
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = address;
        match self.0.1.test_run(options) {
            Ok(result) => result.return_value,
            Err(error) => {
                tracing::debug!("asking how much a socket has to read: {error}");
                0
            }
        }
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gauge").finish_non_exhaustive()
    }
}

/// Takes the program of an earlier agent away from its cgroup, if there was one.
pub(super) fn detach(links: &Path) {
    // A link goes with its last pin.
    let _ = fs::remove_file(links.join(name::SOCKET_EVENTS));
}

/// Pins a link in place of an earlier agent's, so that at no time no program is attached: it would
/// miss members that close.
fn pin_over(link: FdLink, links: &Path) -> Result<(), Error> {
    let next = links.join(format!("{}_next", name::SOCKET_EVENTS));
    // Left by an agent that was killed here.
    let _ = fs::remove_file(&next);
    link.pin(&next).map_err(pinning)?;
    fs::rename(&next, links.join(name::SOCKET_EVENTS)).map_err(Error::Pin)
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    object
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(failed(name))
}

fn failed(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { program, source }
}

fn pinning(error: PinError) -> Error {
    Error::Pin(io::Error::other(error))
}
