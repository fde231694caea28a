//! A cluster's API server as source of truth.
//!
//! Each kind has a watch of its own, which lists once and then follows. While the server is away, or
//! a watch fails, what was known serves on, and the watch tries again, for as long as it takes.
//! What the mesh doesn't need of an object is dropped as soon as it has been read.

mod apply;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{
    Api, Client, Config,
    api::DynamicObject,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use self::{
    apply::Applier,
    watch::{Message, resource, watch},
};
use super::{
    facts::{Kind, ObjectKey},
    problems::Problems,
    schema::{SCHEMAS, Schema},
    store::Store,
};

/// How long after an event others are awaited, so that a burst is one update.
const GATHER: Duration = Duration::from_millis(5);
/// Objects that may wait to be applied. They are whole, so it isn't many.
const WAITING: usize = 64;

/// How long a connection to the API server may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Why the cluster can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be used.
    #[error("--kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// There is no such configuration.
    #[error("not in a cluster: {0} (--kubeconfig names a file that says where the API server is)")]
    NotInCluster(#[from] InClusterError),
    /// TLS or the address is of no use.
    #[error("a client of the API server: {0}")]
    Client(#[from] Box<kube::Error>),
    /// Every watch has ended.
    #[error("the watches of the API server have ended")]
    Ended,
}

/// A client as a file says, or else as the service account of the pod that this runs in.
///
/// # Errors
/// [`Error`]. The server isn't asked yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |source: KubeconfigError| Error::Kubeconfig {
                path: path.to_owned(),
                source: Box::new(source),
            };
            let read = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(wrong)?
        }
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config).map_err(Box::new)?)
}

/// Where objects like one are asked for: of its kind, in its namespace if it has one.
#[must_use]
pub fn objects_like(client: Client, object: &ObjectKey) -> Api<DynamicObject> {
    let schema = Schema::of(object.kind);
    let resource = resource(schema, schema.versions[0]);
    if schema.namespaced {
        Api::namespaced_with(client, &object.name.namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    }
}

/// Every object of a kind, as the API server has it.
#[must_use]
pub fn objects_of(client: Client, kind: Kind) -> Api<DynamicObject> {
    let schema = Schema::of(kind);
    Api::all_with(client, &resource(schema, schema.versions[0]))
}

/// A cluster whose objects are known, and are followed once it [runs](Cluster::run).
#[derive(Debug)]
pub struct Cluster {
    applier: Applier,
    messages: mpsc::Receiver<Message>,
    /// End with this value.
    _watches: JoinSet<()>,
}

impl Cluster {
    /// Loads everything into the store. Waits until the server has
    /// told of each, however long that takes: [`Problems`] are logged meanwhile.
    ///
    /// # Errors
    /// Every watch has ended, which none does.
    pub async fn open(
        client: Client,
        trust_domain: impl Into<Arc<str>>,
        store: Arc<Store>,
    ) -> Result<Self, Error> {
        let (sender, messages) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        for schema in &SCHEMAS {
            watches.spawn(watch(client.clone(), schema, sender.clone()));
        }
        let mut cluster = Self {
            applier: Applier::new(trust_domain.into(), store),
            messages,
            _watches: watches,
        };
        while !cluster.applier.is_complete() {
            cluster.apply_next().await?;
        }
        Ok(cluster)
    }

    /// A handle on what is wrong.
    #[must_use]
    pub fn problems(&self) -> Problems {
        self.applier.problems()
    }

    /// Follows the cluster until told to stop.
    pub async fn run(mut self, cancellation: CancellationToken) {
        let follow = async {
            while self.apply_next().await.is_ok() {
                time::sleep(GATHER).await;
            }
        };
        tokio::select! {
            () = cancellation.cancelled() => {}
            () = follow => {}
        }
    }

    async fn apply_next(&mut self) -> Result<(), Error> {
        let mut messages = Vec::new();
        if self.messages.recv_many(&mut messages, WAITING).await == 0 {
            return Err(Error::Ended);
        }
        self.applier.apply(messages);
        Ok(())
    }
}
