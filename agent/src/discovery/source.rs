//! The source of truth: a directory of manifests, or a cluster.

use std::{path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    directory::{self, Directory},
    kubernetes::{self, Cluster},
    problems::Problems,
    store::Store,
};

/// Which one.
#[derive(Debug, Clone)]
pub enum Settings {
    /// A directory of manifests.
    Directory(PathBuf),
    /// The API server that a kubeconfig names, or that of the cluster this runs in.
    Kubernetes {
        /// The file, if not in a cluster.
        kubeconfig: Option<PathBuf>,
    },
}

impl Settings {
    /// In a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }

    /// Where it is, for operators.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Directory(path)
            | Self::Kubernetes {
                kubeconfig: Some(path),
            } => path.display().to_string(),
            Self::Kubernetes { kubeconfig: None } => "this cluster".to_owned(),
        }
    }
}

/// Why it can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// The cluster.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
}

/// A source that has been loaded, and is followed once it [runs](Source::run).
#[derive(Debug)]
pub enum Source {
    /// A directory of manifests.
    Directory(Box<Directory>),
    /// A cluster.
    Kubernetes(Box<Cluster>),
}

impl Source {
    /// Loads everything into the store. A directory is there or isn't; a cluster is waited for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(
        settings: Settings,
        trust_domain: Arc<str>,
        store: Arc<Store>,
    ) -> Result<Self, Error> {
        Ok(match settings {
            Settings::Directory(path) => {
                let directory = Directory::open(path, trust_domain, store).await?;
                Self::Directory(Box::new(directory))
            }
            Settings::Kubernetes { kubeconfig } => {
                let client = kubernetes::client(kubeconfig.as_deref()).await?;
                let cluster = Cluster::open(client, trust_domain, store).await?;
                Self::Kubernetes(Box::new(cluster))
            }
        })
    }

    /// A handle on what is wrong.
    #[must_use]
    pub fn problems(&self) -> Problems {
        match self {
            Self::Directory(directory) => directory.problems(),
            Self::Kubernetes(cluster) => cluster.problems(),
        }
    }

    /// Follows it until told to stop.
    pub async fn run(self, cancellation: CancellationToken) {
        match self {
            Self::Directory(directory) => directory.run(cancellation).await,
            Self::Kubernetes(cluster) => cluster.run(cancellation).await,
        }
    }
}
