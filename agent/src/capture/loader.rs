//! Loading the programs, with their maps and links pinned so that captures outlive the agent.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use ambit_common::map::{Configuration, LAYOUT_VERSION};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError, SchedClassifier, SkLookup},
};
use aya_log::EbpfLogger;
use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Settings,
    held::HeldSyns,
    layout,
    maps::{self, Counters, Maps},
    passed::{self, Events, Passes},
    sockets::Cgroup,
    splice::{self, Splice, SpliceCounters},
};
use ambit_common::name;

/// Has the kernel ask for our listeners where only it may choose one. The link ends with the agent, as
/// its listeners do.
fn give_listeners(object: &mut Ebpf) -> Result<(), ProgramError> {
    let program: &mut SkLookup = program(object, name::REOPENED_PROGRAM)?;
    program.load()?;
    let namespace = File::open("/proc/thread-self/ns/net").map_err(ProgramError::IOError)?;
    program.attach(namespace).map(drop)
}

/// Loads a program that is never attached, for the agent to run. A handle of its own is only had by way of a pin.
///
/// # Errors
/// The kernel's.
pub(super) fn load_own(
    object: &mut Ebpf,
    directory: &Path,
    name: &str,
) -> Result<SchedClassifier, ProgramError> {
    let program: &mut SchedClassifier = program(object, name)?;
    program.load()?;
    let pin = directory.join(name);
    // Left by an agent that was killed here.
    let _ = fs::remove_file(&pin);
    program
        .pin(&pin)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    let program = SchedClassifier::from_pin(&pin);
    fs::remove_file(&pin).map_err(ProgramError::IOError)?;
    program
}

/// One of the object's programs.
pub(super) fn program<'a, P>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let found = object.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    found.try_into()
}

/// The object that agent/build.rs compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ambit-ebpf"));

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Why the programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The BPF file system isn't there and can't be mounted.
    #[error(
        "no BPF file system at {path}, and mounting one failed: {source} (mount it, or point --bpffs at one)"
    )]
    Mount {
        /// The directory that was asked for.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A directory for the pins can't be made.
    #[error("cannot create {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused the object.
    #[error("loading the eBPF object: {0} (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)")]
    Object(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("loading eBPF program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's reason, with the verifier's words.
        source: ProgramError,
    },
    /// A map can't be used.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// Connections that pass can't be followed.
    #[error(transparent)]
    Passed(#[from] passed::Error),
    /// Pinned maps of an agent with other layouts.
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

/// What was loaded.
pub struct Loaded {
    /// The object, which holds the programs.
    pub object: Ebpf,
    /// Handles for writing.
    pub maps: Maps,
    /// Handle for reading the counters.
    pub counters: Counters,
    /// The splice, if it is wanted; or why it can't be had.
    pub splice: Option<Result<Splice, splice::Error>>,
    /// Handle for reading its counters.
    pub splice_counters: SpliceCounters,
    /// What pods sent before they were known.
    pub(super) held: HeldSyns,
    /// Connections that pass from pod to pod.
    pub passes: Passes,
    /// What is told of them.
    pub events: Events,
}

/// Directory of the pinned maps below the BPF file system.
#[must_use]
pub fn map_directory(bpffs: &Path) -> PathBuf {
    bpffs.join("ambit/maps")
}

/// Directory of the pinned links below the BPF file system.
#[must_use]
pub fn link_directory(bpffs: &Path) -> PathBuf {
    bpffs.join("ambit/links")
}

/// Loads the object, with the maps of an earlier agent if there are any.
///
/// # Errors
/// [`Error`], each with the cure where there is one.
pub fn load(settings: &Settings) -> Result<Loaded, Error> {
    ensure_bpffs(&settings.bpffs)?;
    let map_directory = map_directory(&settings.bpffs);
    for path in [&map_directory, &link_directory(&settings.bpffs)] {
        fs::create_dir_all(path).map_err(|source| Error::Directory {
            path: path.clone(),
            source,
        })?;
    }
    let level = log_level();
    let offsets = settings.splice.unwrap_or_default();
    let mut object = EbpfLoader::new()
        // Only the splice reads kernel structs, by offsets that it is told: the kernel's own types,
        // some megabytes, aren't needed.
        .btf(None)
        .default_map_pin_directory(&map_directory)
        .override_global(aya_log::LEVEL, &level, true)
        .override_global(name::OFFSETS, &offsets, true)
        .load(OBJECT)?;
    let mut maps = Maps::take(&mut object)?;
    let found = maps.configuration()?;
    layout::check(&map_directory, found)?;
    maps.set_configuration(Configuration {
        layout: LAYOUT_VERSION,
        allow_unknown_pods: settings.allow_unknown_pods.into(),
        allow_without_agent: settings.allow_without_agent.into(),
        // As it was, until what the maps have room for is known.
        capture_all: found.capture_all,
        hold: u64::try_from(settings.hold.as_nanos()).unwrap_or(u64::MAX),
    })?;
    let counters = Counters::take(&mut object)?;
    start_log(&mut object);
    for name in name::PROGRAMS {
        program(&mut object, name)
            .and_then(SchedClassifier::load)
            .map_err(|source| Error::Program {
                program: name,
                source,
            })?;
    }
    let program = name::REOPENED_PROGRAM;
    give_listeners(&mut object).map_err(|source| Error::Program { program, source })?;
    let links = link_directory(&settings.bpffs);
    let pass_for = attach_to_cgroup(&mut object, settings, &links);
    let mut own = |program| {
        load_own(&mut object, &links, program).map_err(|source| Error::Program { program, source })
    };
    let (exists, send_on) = (own(name::EXISTS)?, own(name::SEND_ON)?);
    let (passes, events) = Passes::take(&mut object, exists, pass_for)?;
    let held = HeldSyns::take(&mut object, send_on)?;
    let splice_counters = SpliceCounters::take(&mut object)?;
    let splice = settings.splice.map(|_| Splice::load(&mut object, &links));
    Ok(Loaded {
        object,
        maps,
        counters,
        splice,
        splice_counters,
        held,
        passes,
        events,
    })
}

/// For how long connections may pass.
fn attach_to_cgroup(object: &mut Ebpf, settings: &Settings, links: &Path) -> Duration {
    let cgroup = Cgroup::open(&settings.cgroup, links).and_then(|cgroup| {
        cgroup.attach_connected(object)?;
        Ok(cgroup)
    });
    let cgroup = match cgroup {
        Ok(cgroup) => cgroup,
        Err(error) => {
            tracing::warn!(
                "all connections of this node's pods go through the agent, with what pacing they \
                 have: {error}"
            );
            return Duration::ZERO;
        }
    };
    if let Err(error) = cgroup.attach_balancers(object) {
        tracing::warn!("all connections to services go through the agent: {error}");
    }
    settings.pass_for
}

fn ensure_bpffs(path: &Path) -> Result<(), Error> {
    let mount_error = |source: io::Error| Error::Mount {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(mount_error)?;
    let found = statfs(path).map_err(|error| mount_error(error.into()))?;
    if u64::try_from(found.f_type).ok() == Some(BPF_FS_MAGIC) {
        return Ok(());
    }
    mount("bpf", path, "bpf", MountFlags::empty(), None).map_err(|error| mount_error(error.into()))
}

/// The programs log at debug level, and only if someone listens: the check is a constant to them.
fn log_level() -> u8 {
    if tracing::enabled!(target: "ambit_ebpf", tracing::Level::DEBUG) {
        aya_log::Level::Debug as u8
    } else {
        aya_log::Level::Error as u8
    }
}

/// Passes what the programs log on to the agent's log.
fn start_log(object: &mut Ebpf) {
    let logger = match EbpfLogger::init(object) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the eBPF programs' log can't be read: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        #[expect(
            unsafe_code,
            reason = "tokio asks for a promise about the descriptor's life"
        )]
        // SAFETY: the logger owns the ring buffer's descriptor and keeps it open until dropped.
        let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let Ok(mut logger) = logger else {
            return;
        };
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}

#[cfg(test)]
mod tests {
    use ambit_common::name;
    use aya_obj::Object;

    use super::OBJECT;

    #[test]
    fn the_object_has_every_program_and_map_that_is_named() {
        let object = Object::parse(OBJECT).unwrap();
        for program in name::PROGRAMS {
            assert!(object.programs.contains_key(program), "{program}");
        }
        for map in name::PINNED_MAPS {
            assert!(object.maps.contains_key(map), "{map}");
        }
    }
}
