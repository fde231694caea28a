//! A Kubernetes API server for a lab: real HTTPS, real semantics, as far as a mesh asks for them.

mod accounts;
mod admission;
mod body;
mod cluster;
mod directory;
mod discovery;
mod faults;
mod list;
mod managed_fields;
mod rbac;
mod refusal;
mod request;
mod resources;
mod review;
mod selector;
mod serve;
mod state;
mod storage;
mod tls;
mod watch;
mod write;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use self::{
    accounts::{Bound, OWN_AUDIENCE},
    directory::Directory,
    resources::RESOURCES,
    state::{Shared, State},
    storage::Key,
};
use crate::{Error, Lab, Place, Result};

pub use rbac::Rbac;

/// Where the server listens on the first node.
const PORT: u16 = 6443;
/// How often the directory is looked at, if that takes no time to speak of.
const LOOK: Duration = Duration::from_millis(20);

/// A Kubernetes API server on the first node of a lab, port 6443, in the test's own process.
///
/// It serves the objects of the lab's directory of manifests and follows it, and those that
/// clients create beside them. Nodes of the lab that no manifest describes have a Node object.
/// What it refuses, it refuses as Kubernetes does. It checks Kubernetes' own kinds against their
/// types, but not those of CRDs against their schemas; it runs no controllers but the garbage
/// collection of owned objects. Services that clients create are given addresses that lead nowhere.
/// Bodies are JSON, or YAML to
/// apply: it doesn't speak protobuf or JSON patches. Dropped, it stops.
#[derive(Debug)]
pub struct ApiServer {
    place: Place,
    address: SocketAddr,
    directory: PathBuf,
    /// Makes this lab's tokens differ from others'.
    salt: String,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
    /// Taken when the server is dropped.
    runtime: Option<Runtime>,
    ended: Arc<AtomicBool>,
}

/// A request that the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSeen {
    /// Empty if there was no valid token.
    pub user: String,
    /// The HTTP method.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
}

impl ApiServer {
    /// Starts the server; the objects of the lab's directory are there from the first request on,
    /// and what changes there is seen within about 50 ms.
    ///
    /// # Errors
    /// If it can't listen, or its files can't be written.
    pub fn start(lab: &Lab) -> Result<Self> {
        let node = &lab.nodes()[0];
        let (tls, authority) = tls::configure(node.addresses())?;
        let directory = lab.directory().join("api-server");
        fs::create_dir_all(&directory).map_err(Error::path("create", &directory))?;
        let ca = directory.join("ca.crt");
        fs::write(&ca, authority).map_err(Error::path("write", &ca))?;
        let mut state = State::default();
        cluster::populate(&mut state, lab.nodes());
        let mut followed = Directory::new(lab.manifests().directory());
        if let Some(difference) = followed.look() {
            difference.apply(&mut state);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("api-server")
            .enable_all()
            .build()
            .map_err(Error::io("start the API server's threads"))?;
        let server = Self {
            place: (**node).clone(),
            address: SocketAddr::new(node.address(), PORT),
            directory,
            salt: lab.name().into(),
            tls,
            shared: Arc::new(Shared::new(state)),
            serving: Mutex::new(None),
            runtime: Some(runtime),
            ended: Arc::default(),
        };
        server.resume()?;
        let (shared, ended) = (Arc::clone(&server.shared), Arc::clone(&server.ended));
        thread::spawn(move || follow(followed, &shared, &ended));
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file of the authority that signed the server's certificate: PEM.
    #[must_use]
    pub fn certificate_authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A kubeconfig file for a user, such as `system:serviceaccount:ambit-system:ambit-node`, or
    /// `system:admin` who may do everything. The token is in a file of its own beside it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let path = self
            .directory
            .join(format!("{}.kubeconfig", file_name(user)));
        self.write_token(user)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
            "clusters": [{
                "name": "lab",
                "cluster": {
                    "server": format!("https://{}", self.address),
                    "certificate-authority": self.certificate_authority(),
                },
            }],
            "users": [{ "name": user, "user": { "tokenFile": self.token_file(user) } }],
        });
        write_private(&path, &config.to_string())?;
        Ok(path)
    }

    /// Puts a new token for a user in its kubeconfig's file, and refuses all earlier ones.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn rotate_token(&self, user: &str) -> Result<()> {
        self.shared.state().accounts.revoke(user);
        self.write_token(user)
    }

    /// Creates or replaces an object as an administrator, status included.
    ///
    /// # Errors
    /// If the server doesn't know the kind, or the object has no name.
    pub fn apply(&self, object: Value) -> Result<()> {
        let key = directory::key(&object).ok_or_else(|| {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let cause = "apiVersion and kind aren't those of a kind that it knows, or there is \
                         no name";
            Error::malformed(format!("the API server's new object {kind} {name}"), cause)
        })?;
        self.shared.change(|state| state.storage.put(&key, object));
        Ok(())
    }

    /// Deletes an object as an administrator, whatever its finalizers. An object of the lab's
    /// directory comes back when its file changes.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let deleted = self.shared.change(|state| {
            let mut keys = keys(kind, namespace, name);
            keys.any(|key| state.storage.remove(&key))
        });
        if deleted {
            return Ok(());
        }
        let what = format!("{kind} {namespace}/{name} of the API server");
        Err(Error::malformed(what, "there is none"))
    }

    /// An object as it is now; `namespace` is empty for a kind that has none.
    #[must_use]
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.shared.state();
        let mut keys = keys(kind, namespace, name);
        keys.find_map(|key| state.storage.object(&key).map(|object| (**object).clone()))
    }

    /// All objects of a kind, of whatever namespace and group.
    #[must_use]
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        let state = self.shared.state();
        let of_kind = (0..RESOURCES.len()).filter(|index| RESOURCES[*index].kind == kind);
        of_kind
            .flat_map(|index| state.storage.objects(index, ""))
            .map(|(_, object)| (**object).clone())
            .collect()
    }

    /// A token as the kubelet projects it into a pod (`name`, `uid`) of a service account, for
    /// these audiences. If the pod has an object now, the token is worth nothing without it.
    #[must_use]
    pub fn token(&self, user: &str, pod: (&str, &str), node: &str, audiences: &[&str]) -> String {
        let mut state = self.shared.state();
        let mut bound = Bound {
            pod: pod.0.into(),
            uid: pod.1.into(),
            node: node.into(),
            lives_with_pod: false,
        };
        bound.lives_with_pod = review::has_pod(&state, user, &bound);
        state
            .accounts
            .issue(user, audiences, Some(bound), &self.salt)
    }

    /// The requests that were answered, oldest first: the last 20,000. A watch is among them from
    /// its beginning.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestSeen> {
        self.shared.state().requests.iter().cloned().collect()
    }

    /// From now on every request is refused with 403 unless a rule allows it.
    pub fn authorize(&self, rules: Rbac) {
        self.shared.state().rbac = Some(rules);
    }

    fn write_token(&self, user: &str) -> Result<()> {
        let mut state = self.shared.state();
        let token = state
            .accounts
            .issue(user, &[OWN_AUDIENCE], None, &self.salt);
        drop(state);
        write_private(&self.token_file(user), &token)
    }

    fn token_file(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{}.token", file_name(user)))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.stop_answering();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Applies what changes in the directory until the server ends.
fn follow(mut directory: Directory, shared: &Shared, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if let Some(difference) = directory.look() {
            shared.change(|state| difference.apply(state));
        }
        // Thousands of files take a while: most of the processor is for the test.
        thread::sleep(LOOK.max(begun.elapsed() * 4));
    }
}

/// The keys that an object of a kind could have: there may be one kind in two groups.
fn keys(kind: &str, namespace: &str, name: &str) -> impl Iterator<Item = Key> {
    let of_kind = (0..RESOURCES.len()).filter(move |index| RESOURCES[*index].kind == kind);
    of_kind.map(move |resource| Key {
        resource,
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// A user's name as a part of a file name.
fn file_name(user: &str) -> String {
    user.replace([':', '/'], "-")
}

/// Replaces a file whole, so that a client never reads half a token.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(Error::path("create", &unfinished))?;
    file.write_all(text.as_bytes())
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(Error::path("write", path))
}
