//! Attaching programs to devices: by pinned TCX links, or by clsact filters before kernel 6.6.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use ambit_common::name;
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};

use super::loader;

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// TCX where the kernel has it, else clsact.
    Auto,
    /// Links, pinned (kernel 6.6 and later).
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// What a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A pod's veth: `from_pod` and `to_pod`.
    Pod,
    /// Any other device: `from_node`.
    Node,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Pod => Self::Node,
            Self::Node => Self::Pod,
        }
    }

    fn hooks(self) -> &'static [(&'static str, TcAttachType)] {
        match self {
            Self::Pod => &[
                (name::FROM_POD, TcAttachType::Ingress),
                (name::TO_POD, TcAttachType::Egress),
            ],
            Self::Node => &[(name::FROM_NODE, TcAttachType::Ingress)],
        }
    }
}

/// Why a program is not on a device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("attaching {program} to {device}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The device's name.
        device: String,
        /// The kernel's reason.
        source: ProgramError,
    },
    /// The link can't be pinned.
    #[error("pinning the link of {program} on {device}: {source}")]
    Pin {
        /// The program.
        program: &'static str,
        /// The device's name.
        device: String,
        /// The reason.
        source: io::Error,
    },
    /// The clsact qdisc can't be made.
    #[error("adding a clsact qdisc to {device}: {source}")]
    Qdisc {
        /// The device's name.
        device: String,
        /// The reason.
        source: io::Error,
    },
}

/// A filter of ours is known by these, so that a later agent replaces it.
pub(super) const FILTER_PRIORITY: u16 = 1538;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches programs; the links outlive it.
pub struct Attacher {
    object: Ebpf,
    directory: PathBuf,
    use_tcx: bool,
}

impl Attacher {
    /// Attaches the programs of `object`, pinning links in `directory`.
    #[must_use]
    pub fn new(object: Ebpf, directory: PathBuf, mechanism: Mechanism) -> Self {
        let use_tcx = match mechanism {
            Mechanism::Tcx => true,
            Mechanism::Clsact => false,
            Mechanism::Auto => has_tcx(),
        };
        Self {
            object,
            directory,
            use_tcx,
        }
    }

    /// How it attaches, in the kernel's words.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self.use_tcx {
            true => "TCX",
            false => "clsact",
        }
    }

    /// Puts the programs of `role` on a device, in place of an earlier agent's, and takes off
    /// those of the other role: a device may be taken for a pod's until its routes are there.
    ///
    /// # Errors
    /// [`Error`]; hooks attached before it stay.
    pub fn attach(&mut self, index: u32, device: &str, role: Role) -> Result<(), Error> {
        for &(program, hook) in role.hooks() {
            if self.use_tcx {
                self.attach_link(index, device, program, hook)?;
            } else {
                self.attach_filter(device, program, hook)?;
            }
        }
        for &(program, hook) in role.other().hooks() {
            // A link goes with its last pin; there is none unless the role changed.
            let _ = fs::remove_file(self.pin(index, program));
            let replaced = role.hooks().iter().any(|(_, taken)| *taken == hook);
            if !self.use_tcx && !replaced {
                detach_filter(device, hook);
            }
        }
        Ok(())
    }

    /// Removes the pins of devices that no longer exist.
    pub fn sweep(&self, present: &BTreeSet<u32>) {
        for (path, index) in pins(&self.directory) {
            if !present.contains(&index) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn attach_link(
        &mut self,
        index: u32,
        device: &str,
        program: &'static str,
        hook: TcAttachType,
    ) -> Result<(), Error> {
        let failed = |source| Error::Attach {
            program,
            device: device.to_owned(),
            source,
        };
        let pin = self.pin(index, program);
        let classifier: &mut SchedClassifier =
            loader::program(&mut self.object, program).map_err(failed)?;
        if let Some(link) = pinned(&pin) {
            if classifier
                .attach_to_link(link)
                .and_then(|id| classifier.take_link(id))
                .is_ok()
            {
                return Ok(());
            }
            // The link is of a device that is gone.
            let _ = fs::remove_file(&pin);
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = classifier
            .attach_with_options(device, hook, options)
            .and_then(|id| classifier.take_link(id))
            .map_err(failed)?;
        let link = FdLink::try_from(link)
            .map_err(|error: LinkError| failed(ProgramError::from(tc_error(&error))))?;
        link.pin(&pin).map_err(|error| Error::Pin {
            program,
            device: device.to_owned(),
            source: io::Error::other(error),
        })?;
        Ok(())
    }

    fn attach_filter(
        &mut self,
        device: &str,
        program: &'static str,
        hook: TcAttachType,
    ) -> Result<(), Error> {
        match tc::qdisc_add_clsact(device) {
            Ok(()) => {}
            // It has one already: ours from the hook before, or somebody else's.
            Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            }
            Err(error) => {
                let source = io::Error::other(error);
                return Err(Error::Qdisc {
                    device: device.to_owned(),
                    source,
                });
            }
        }
        let failed = |source| Error::Attach {
            program,
            device: device.to_owned(),
            source,
        };
        let classifier: &mut SchedClassifier =
            loader::program(&mut self.object, program).map_err(failed)?;
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: FILTER_PRIORITY,
            handle: FILTER_HANDLE,
            ..NlOptions::default()
        });
        // In place of an earlier agent's, in one step: without a filter plaintext would pass.
        let replaced =
            filter(device, hook).and_then(|earlier| classifier.attach_to_link(earlier).ok());
        let link = replaced
            .map_or_else(|| classifier.attach_with_options(device, hook, options), Ok)
            .and_then(|id| classifier.take_link(id))
            .map_err(failed)?;
        // Dropping it would detach the filter, which must outlive the agent.
        std::mem::forget(link);
        Ok(())
    }

    fn pin(&self, index: u32, program: &str) -> PathBuf {
        self.directory.join(format!("{program}_{index}"))
    }
}

/// Device indexes and paths of the pinned links.
pub fn pins(directory: &Path) -> Vec<(PathBuf, u32)> {
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let index = path
                .file_name()?
                .to_str()?
                .rsplit_once('_')?
                .1
                .parse()
                .ok()?;
            Some((path, index))
        })
        .collect()
}

/// Removes the filters that [`Mechanism::Clsact`] left on a device; harmless if there are none.
pub fn detach_filter(device: &str, hook: TcAttachType) {
    // Dropping a link detaches it.
    drop(filter(device, hook));
}

/// The filter that is, or would be, ours on a device.
fn filter(device: &str, hook: TcAttachType) -> Option<SchedClassifierLink> {
    SchedClassifierLink::attached(device, hook, FILTER_PRIORITY, FILTER_HANDLE, None).ok()
}

fn pinned(path: &Path) -> Option<SchedClassifierLink> {
    let link = FdLink::from(PinnedLink::from_pin(path).ok()?);
    SchedClassifierLink::try_from(link).ok()
}

/// TCX came with 6.6.
fn has_tcx() -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

fn tc_error(error: &LinkError) -> tc::TcError {
    tc::TcError::IoError(io::Error::other(error.to_string()))
}
