//! A directory of Kubernetes manifests as source of truth, watched for change.
//!
//! Takes `*.yaml`, `*.yml` and `*.json` of the directory itself, hidden files left out. What can't
//! be read doesn't replace what could be: an object, a file or the whole directory that breaks or
//! vanishes leaves its last good state serving. Only a deletion that is seen as one deletes.

mod loader;
mod watch;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::task::{self, JoinError};
use tokio_util::sync::CancellationToken;

use self::{
    loader::{Loader, Scope},
    watch::Watch,
};
use super::{
    problems::Problems,
    store::{Placement, Store},
};

/// How long events are gathered before the files are read, so that a burst is one update. What a new pod opens waits
/// for it, so this must be short.
const GATHER: Duration = Duration::from_millis(5);

/// How often a directory that is gone is looked for, and what couldn't be read is tried again. The
/// directory's parents may be gone too, so that there may be nothing left to watch.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be listed.
    #[error("the manifest directory {path} can't be read: {source}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It can't be watched.
    #[error(
        "the manifest directory {path} can't be watched: {source} \
         (is fs.inotify.max_user_watches or max_user_instances used up?)"
    )]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: notify::Error,
    },
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// A directory that has been loaded, and is followed once it [runs](Directory::run).
#[derive(Debug)]
pub struct Directory {
    loader: Loader,
    watch: Watch,
}

impl Directory {
    /// Loads everything into the store. From here on no change is missed.
    ///
    /// # Errors
    /// If the directory can't be listed or watched. Bad files are [`Problems`], not errors.
    pub async fn open(
        path: impl Into<PathBuf>,
        trust_domain: impl Into<Arc<str>>,
        store: Arc<Store>,
    ) -> Result<Self, Error> {
        let (path, trust_domain) = (path.into(), trust_domain.into());
        let open = move || {
            let unreadable = |source| Error::Read {
                path: path.clone(),
                source,
            };
            let path = std::path::absolute(&path).map_err(unreadable)?;
            let mut watch = Watch::new(&path)?;
            watch.attach()?;
            // Nobody makes pods of Gateways here.
            store.place_waypoints(Placement::Nodes);
            let mut loader = Loader::new(path, trust_domain, store);
            loader.load(Scope::Everything)?;
            Ok(Self { loader, watch })
        };
        task::spawn_blocking(open).await.unwrap_or_else(|error| {
            resume(error);
            Err(Error::ShuttingDown)
        })
    }

    /// A handle on what is wrong.
    #[must_use]
    pub fn problems(&self) -> Problems {
        self.loader.problems.clone()
    }

    /// Follows the directory until told to stop.
    pub async fn run(mut self, cancellation: CancellationToken) {
        let signal = self.watch.signal();
        loop {
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = signal.raised() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if self.is_behind() => {}
            }
            tokio::time::sleep(GATHER).await;
            let follow = move || {
                self.follow();
                self
            };
            self = match task::spawn_blocking(follow).await {
                Ok(directory) => directory,
                Err(error) => return resume(error),
            };
        }
    }

    /// Whether no event may come of what is missing.
    fn is_behind(&self) -> bool {
        !self.watch.is_attached() || self.loader.is_behind()
    }

    fn follow(&mut self) {
        let mut scope = self.watch.signal().take();
        let loaded = self.watch.attach().and_then(|attached_anew| {
            if attached_anew {
                scope = Scope::Everything;
            }
            self.loader.load(scope)
        });
        if let Err(error) = loaded {
            self.loader.keep_all(&error);
        }
    }
}

fn resume(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests;
