//! What is wrong with the source of truth.

use std::{fmt, path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{facts::ObjectKey, manifest, store::ObjectProblem};

/// Something wrong in the source that has not been put right. Shown as `<where>: <what>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was found.
    pub origin: Origin,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, or the directory itself.
    File(PathBuf),
    /// The cluster.
    ApiServer,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::ApiServer => write!(f, "API server"),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// The file can't be read; its last good state serves.
    #[error("can't be read: {reason}")]
    Unreadable {
        /// Why not.
        reason: String,
    },
    /// The directory, or a kind of object, can't be followed; all that was there serves.
    #[error("{reason}; its last state serves")]
    NotFollowed {
        /// Why not.
        reason: String,
    },
    /// The file, or an object in it, is wrong; the last good state of that serves.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The object is also in another place, which serves.
    #[error("{object} is already defined in {first}, which keeps serving; remove one of the two")]
    Duplicate {
        /// The object.
        object: ObjectKey,
        /// The file that serves; it may be the same file.
        first: String,
    },
}

impl ProblemKind {
    /// The object, where it is about one of a kind that is understood.
    #[must_use]
    pub fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Unreadable { .. } | Self::NotFollowed { .. } => None,
            Self::Manifest(error) => error.key(),
            Self::Duplicate { object, .. } => Some(object.clone()),
        }
    }

    /// Kind, namespace and name of the object, where it is about one.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } | Self::NotFollowed { .. } => None,
            Self::Manifest(error) => error.object(),
            Self::Duplicate { object, .. } => Some(object.to_string()),
        }
    }

    /// Path of the field, where it is about one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Manifest(error) => error.field(),
            Self::Unreadable { .. } | Self::NotFollowed { .. } | Self::Duplicate { .. } => None,
        }
    }
}

impl From<&ObjectProblem> for ProblemKind {
    fn from(problem: &ObjectProblem) -> Self {
        Self::Manifest(manifest::Error::Field {
            object: problem.object.clone(),
            error: problem.error.clone(),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.kind)
    }
}

/// The current problems, for status: cheap to clone, always up to date.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<watch::Sender<Arc<Vec<Problem>>>>);

impl Problems {
    /// What is wrong now, by file or object.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<Problem>> {
        Arc::clone(&self.0.borrow())
    }

    /// Tells of each change of the list.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Vec<Problem>>> {
        self.0.subscribe()
    }

    /// Replaces the list, and logs what is new in it and what is no longer.
    pub(super) fn replace(&self, now: Vec<Problem>) {
        let before = self.list();
        if *before == now {
            return;
        }
        for problem in now.iter().filter(|problem| !before.contains(problem)) {
            match &problem.origin {
                Origin::File(file) => tracing::error!(file = %file.display(), "{}", problem.kind),
                Origin::ApiServer => tracing::error!("{problem}"),
            }
        }
        for problem in before.iter().filter(|problem| !now.contains(problem)) {
            tracing::info!("no longer: {problem}");
        }
        self.0.send_replace(Arc::new(now));
    }
}
