//! The programs of the splice: loading them, and asking them.

use std::{
    fmt,
    os::fd::AsRawFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ambit_common::{
    counter::SpliceCounter,
    name,
    splice::{End, JoinRequest, SpliceSettings},
};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, PerCpuArray, SkStorage, SockHash},
    programs::{
        Program, ProgramError, RawTracePoint, RawTracePointRunOptions, SchedClassifier, SkMsg,
        TestRun, TestRunOptions,
    },
};

use super::{
    loader::own,
    maps::{self, refused, take},
};

/// Why the splice can't be used on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a program.
    #[error(
        "eBPF program {program}: {source} (the splice needs Linux 5.15, CAP_BPF and CAP_PERFMON)"
    )]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's reason, with the verifier's words.
        source: ProgramError,
    },
    /// A map can't be used.
    #[error(transparent)]
    Maps(#[from] maps::Error),
}

/// The splice's settings, and the way to ask its programs.
pub struct Splice {
    settings: Array<MapData, SpliceSettings>,
    kernel: Kernel,
}

/// Reads the splice's counters.
pub struct SpliceCounters(PerCpuArray<MapData, u64>);

/// Asks the splice's programs; cheap to clone.
#[derive(Clone)]
pub struct Kernel(Arc<Asked>);

struct Asked {
    ends: Mutex<SkStorage<MapData, End>>,
    join: SchedClassifier,
    queued: RawTracePoint,
}

impl Splice {
    /// Loads the programs, and attaches to the map of members the one that runs when they send, in
    /// place of an earlier agent's. It outlives the agent: what a member has been given it can
    /// still read then.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn load(object: &mut Ebpf, directory: &Path) -> Result<Self, Error> {
        let members: SockHash<MapData, u64> = take(object, name::SPLICE_SOCKETS)?;
        let send: &mut SkMsg = program(object, name::SEND)?;
        let attached = send
            .load()
            .and_then(|()| send.attach(members.fd()))
            .and_then(|id| send.take_link(id));
        // Dropping it would detach the program.
        std::mem::forget(attached.map_err(failed(name::SEND))?);

        let join: &mut SchedClassifier = program(object, name::JOIN)?;
        join.load().map_err(failed(name::JOIN))?;
        let queued: &mut RawTracePoint = program(object, name::QUEUED)?;
        queued.load().map_err(failed(name::QUEUED))?;
        let asked = Asked {
            ends: Mutex::new(take(object, name::SPLICE_ENDS)?),
            join: own(object, directory, name::JOIN, |pin| {
                SchedClassifier::from_pin(pin)
            })
            .map_err(failed(name::JOIN))?,
            queued: own(object, directory, name::QUEUED, |pin| {
                RawTracePoint::from_pin(pin)
            })
            .map_err(failed(name::QUEUED))?,
        };
        Ok(Self {
            settings: take(object, name::SPLICE_SETTINGS)?,
            kernel: Kernel(Arc::new(asked)),
        })
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

    /// The way to ask the programs.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
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

impl Kernel {
    /// Makes both ends of a connection of the agent's members; what came of it.
    #[must_use]
    pub fn join(&self, request: &JoinRequest) -> SpliceCounter {
        let options = TestRunOptions {
            data_in: Some(&request.frame()),
            ..TestRunOptions::default()
        };
        let counter = self.0.join.test_run(options).map(|result| {
            let index = usize::try_from(result.return_value).ok()?;
            SpliceCounter::ALL.get(index).copied()
        });
        match counter {
            Ok(counter) => counter.unwrap_or(SpliceCounter::JoinFailed),
            Err(error) => {
                tracing::debug!("joining a connection to the splice: {error}");
                SpliceCounter::JoinFailed
            }
        }
    }

    /// What the programs keep with a socket of this process; `None`: nothing.
    #[must_use]
    pub fn end(&self, socket: &impl AsRawFd) -> Option<End> {
        match self.ends().get(socket, 0) {
            Ok(end) => Some(end),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                tracing::debug!("asking for a socket's end of the splice: {error}");
                None
            }
        }
    }

    /// Says which way goes what a socket of this process sends (`PATH_*`). To TCP only when the
    /// application has read all that it was given past it.
    pub fn set_path(&self, socket: &impl AsRawFd, end: End, path: u32) {
        let end = End { path, ..end };
        // Its own messages alone change it, and who asks sends none meanwhile.
        if let Err(error) = self.ends().insert(socket, end, 0) {
            tracing::debug!("choosing the way of a socket's bytes: {error}");
        }
    }

    /// Bytes that the socket with that address in the kernel was given past TCP and hasn't read.
    #[must_use]
    pub fn queued(&self, address: u64) -> u32 {
        self.ask(address, 0)
    }

    /// How many those may be.
    #[must_use]
    pub fn limit(&self, address: u64) -> u32 {
        self.ask(address, 1)
    }

    fn ask(&self, address: u64, what: u64) -> u32 {
        let mut options = RawTracePointRunOptions::new();
        options.args[..2].copy_from_slice(&[address, what]);
        match self.0.queued.test_run(options) {
            Ok(result) => result.return_value,
            Err(error) => {
                tracing::debug!("asking how much a socket has to read: {error}");
                0
            }
        }
    }

    fn ends(&self) -> MutexGuard<'_, SkStorage<MapData, End>> {
        // The map is the kernel's: a panic leaves nothing half done.
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kernel").finish_non_exhaustive()
    }
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
