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
    splice::{End, JoinRequest, REQUEST_OFFSET, SpliceSettings, peer_key},
};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, PerCpuArray, SkStorage, SockHash},
    programs::{ProgramError, SchedClassifier, SkMsg, SkSkb, TestRun, TestRunOptions},
};

use super::{
    loader::{load_own, program},
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
    members: Mutex<SockHash<MapData, u64>>,
    ends: Mutex<SkStorage<MapData, End>>,
    join: SchedClassifier,
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
        let receive: &mut SkSkb = program(object, name::RECEIVE).map_err(failed(name::RECEIVE))?;
        let attached = receive
            .load()
            .and_then(|()| receive.attach(members.fd()))
            .and_then(|id| receive.take_link(id));
        // Dropping it would detach the program.
        std::mem::forget(attached.map_err(failed(name::RECEIVE))?);
        let send: &mut SkMsg = program(object, name::SEND).map_err(failed(name::SEND))?;
        let attached = send
            .load()
            .and_then(|()| send.attach(members.fd()))
            .and_then(|id| send.take_link(id));
        // As above.
        std::mem::forget(attached.map_err(failed(name::SEND))?);

        let asked = Asked {
            members: Mutex::new(members),
            ends: Mutex::new(take(object, name::SPLICE_ENDS)?),
            join: load_own(object, directory, name::JOIN).map_err(failed(name::JOIN))?,
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

    /// Makes a socket of this process a member under a key, whatever it is doing: what `join` wouldn't.
    ///
    /// # Errors
    /// [`maps::Error::Refused`].
    pub fn enter(&self, key: u64, socket: impl AsRawFd) -> Result<(), maps::Error> {
        self.kernel
            .members()
            .insert(key, socket, 0)
            .map_err(refused(name::SPLICE_SOCKETS))
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
    /// Makes both ends of a connection members, and returns the first one's key.
    ///
    /// # Errors
    /// Why they didn't become members.
    pub fn join(&self, request: &JoinRequest) -> Result<u64, SpliceCounter> {
        let frame = request.frame();
        let mut answer = frame;
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        let result = self.0.join.test_run(options).map_err(|error| {
            tracing::debug!("joining a connection to the splice: {error}");
            SpliceCounter::JoinFailed
        })?;
        let index = usize::try_from(result.return_value).ok();
        let counter = index.and_then(|index| SpliceCounter::ALL.get(index));
        match (counter, answer[REQUEST_OFFSET..].first_chunk()) {
            (Some(SpliceCounter::Joined), Some(key)) => Ok(u64::from_ne_bytes(*key)),
            (counter, _) => Err(counter.copied().unwrap_or(SpliceCounter::JoinFailed)),
        }
    }

    /// Takes both ends of a connection out, the first of which has that key. What they had to read past TCP
    /// is lost.
    pub fn part(&self, key: u64) {
        let mut members = self.members();
        for key in [key, peer_key(key)] {
            if let Err(error) = maps::absent_is_fine(members.remove(&key)) {
                tracing::warn!("taking a connection out of the splice: {error}");
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

    fn members(&self) -> MutexGuard<'_, SockHash<MapData, u64>> {
        // As below.
        let members = self.0.members.lock();
        members.unwrap_or_else(PoisonError::into_inner)
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

fn failed(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { program, source }
}
