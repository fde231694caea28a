//! Which files may have changed, by inotify.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::Notify;

use super::{Error, loader::Scope};

/// Above so many changed files the whole directory is read instead.
const FILES_HELD: usize = 4096;

/// Watches a directory, and its parent for the directory being replaced.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    watcher: RecommendedWatcher,
    signal: Arc<Signal>,
    /// Device and inode of what is watched.
    attached: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let signal = Arc::new(Signal::default());
        let (raise, directory) = (Arc::clone(&signal), path.to_owned());
        let watcher =
            notify::recommended_watcher(move |event: notify::Result<Event>| match event {
                Ok(event) => raise.note(&event, &directory),
                Err(error) => {
                    tracing::warn!(%error, "watching manifests: reading the directory afresh");
                    raise.raise(|pending| pending.everything = true);
                }
            });
        let watcher = watcher.map_err(|source| Error::Watch {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            watcher,
            signal,
            attached: None,
        })
    }

    pub(super) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// Watches what is at the path now, if that isn't what is watched already; says whether so.
    pub(super) fn attach(&mut self) -> Result<bool, Error> {
        let replaced = self.signal.take_replaced();
        let found = fs::metadata(&self.path).and_then(|found| {
            found
                .is_dir()
                .then_some(found)
                .ok_or_else(|| std::io::ErrorKind::NotADirectory.into())
        });
        let found = match found {
            Ok(found) => (found.dev(), found.ino()),
            Err(source) => {
                self.attached = None;
                return Err(Error::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        // The number of an inode that is gone may be used again: an event outweighs it.
        if self.attached == Some(found) && !replaced {
            return Ok(false);
        }
        self.attached = None;
        let parent = self.path.parent().map(Path::to_owned);
        for path in parent.iter().chain([&self.path]) {
            // Fails if it isn't watched (any more).
            self.watcher.unwatch(path).ok();
            self.watcher
                .watch(path, RecursiveMode::NonRecursive)
                .map_err(|source| Error::Watch {
                    path: self.path.clone(),
                    source,
                })?;
        }
        self.attached = Some(found);
        Ok(true)
    }
}

/// Carries what changed from inotify's thread to the task that reads.
#[derive(Debug, Default)]
pub(super) struct Signal {
    pending: Mutex<Pending>,
    raised: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    everything: bool,
    replaced: bool,
    files: BTreeSet<Arc<str>>,
}

impl Signal {
    /// Waits until something has been noted since the last [`Signal::take`].
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }

    pub(super) fn take(&self) -> Scope {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let files = std::mem::take(&mut pending.files);
        match std::mem::take(&mut pending.everything) {
            true => Scope::Everything,
            false => Scope::Files(files),
        }
    }

    fn take_replaced(&self) -> bool {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut pending.replaced)
    }

    fn raise(&self, note: impl FnOnce(&mut Pending)) {
        note(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.raised.notify_one();
    }

    fn note(&self, event: &Event, directory: &Path) {
        for interest in interests(event, directory) {
            self.raise(|pending| match interest {
                Interest::File(name) if pending.files.len() < FILES_HELD => {
                    pending.files.insert(name);
                }
                Interest::File(_) | Interest::Everything => pending.everything = true,
                Interest::Replaced => pending.replaced = true,
            });
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Interest {
    /// This file may have changed.
    File(Arc<str>),
    /// Any file may have.
    Everything,
    /// The directory itself came, went or was replaced.
    Replaced,
}

/// What an event means for a directory.
///
/// Written files count when they are closed, not at each write: a file that is truncated and then
/// written would be seen empty, and everything in it taken for deleted. Opening and reading are
/// events too, our own among them.
fn interests(event: &Event, directory: &Path) -> Vec<Interest> {
    if event.need_rescan() {
        return vec![Interest::Everything];
    }
    let about_contents = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Metadata(_)) => true,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => return Vec::new(),
        _ => false,
    };
    let of_path = |path: &PathBuf| {
        if path == directory {
            return Some(if about_contents {
                Interest::Everything
            } else {
                Interest::Replaced
            });
        }
        let name = path
            .file_name()
            .filter(|_| path.parent() == Some(directory))?;
        // A mounted ConfigMap changes by replacing the link `..data`, which its files go through.
        match manifest_name(name) {
            Some(name) => Some(Interest::File(name)),
            None => name
                .as_encoded_bytes()
                .starts_with(b"..")
                .then_some(Interest::Everything),
        }
    };
    event.paths.iter().filter_map(of_path).collect()
}

/// The name, if it is that of a manifest and not hidden.
pub(super) fn manifest_name(name: &OsStr) -> Option<Arc<str>> {
    let name = name.to_str().filter(|name| !name.starts_with('.'))?;
    let (_, extension) = name.rsplit_once('.')?;
    matches!(extension, "yaml" | "yml" | "json").then(|| name.into())
}
