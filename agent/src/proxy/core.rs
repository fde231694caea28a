//! What an agent and a waypoint have in common: tunnels in and out, and the connections in them.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task, time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admission::Admission,
    connections::{CloseReason, Connections},
    connector::TunnelConnector,
    dial::Marking,
    load::Load,
    tunnels::Tunnels,
};
use crate::{
    discovery::store::Store,
    hbone,
    identity::{Certificates, Identity, tls::ServerCertificates},
    listening,
    telemetry::Metrics,
};

/// Tasks that wait for a thread: above so many, new connections wait in the kernel, where they take less
/// memory than as tasks.
const WAITING: usize = 256;

/// How long connections that are cut off at the end of a drain have to say so to their ends.
const CUT_OFF: Duration = Duration::from_secs(1);

/// What every connection needs, whoever carries it.
pub struct Core {
    pub(crate) cluster: Arc<str>,
    pub(crate) cluster_domain: Arc<str>,
    pub(crate) store: Arc<Store>,
    pub(crate) certificates: Certificates,
    pub(crate) server_certificates: ServerCertificates,
    pub(crate) tunnels: Tunnels,
    pub(crate) connections: Arc<Connections>,
    pub(crate) load: Load,
    pub(super) admission: Admission,
    /// What marks sockets to other agents have.
    pub(super) marking: Marking,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tunnel_settings: hbone::Settings,
    /// Cancelled when the role is about to end: clients are told to go elsewhere.
    pub(crate) drain: CancellationToken,
    /// Cancelled when it takes nothing new, and `drain` with it: tunnels say GOAWAY, listeners close.
    pub(crate) closed: CancellationToken,
    /// Every connection and tunnel that is being served.
    pub(crate) tasks: TaskTracker,
}

/// What a [`Core`] is made of.
pub struct CoreParts {
    /// The cluster's name, for telemetry.
    pub cluster: Arc<str>,
    /// The end of services' DNS names.
    pub cluster_domain: Arc<str>,
    /// What is known.
    pub store: Arc<Store>,
    /// Certificates that are shown.
    pub certificates: Certificates,
    /// The open set.
    pub connections: Arc<Connections>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// What marks sockets to other agents have.
    pub marking: Marking,
}

impl Core {
    /// Puts it together; it serves nothing yet.
    #[must_use]
    pub fn new(parts: CoreParts) -> Self {
        let connector = TunnelConnector::new(parts.certificates.clone(), parts.marking);
        let closed = CancellationToken::new();
        Self {
            cluster: parts.cluster,
            cluster_domain: parts.cluster_domain,
            store: parts.store,
            server_certificates: ServerCertificates::new(parts.certificates.clone()),
            certificates: parts.certificates,
            tunnels: Tunnels::new(connector),
            connections: parts.connections,
            load: Load::default(),
            admission: Admission::default(),
            marking: parts.marking,
            metrics: parts.metrics,
            tunnel_settings: hbone::Settings::default(),
            drain: closed.child_token(),
            closed,
            tasks: TaskTracker::new(),
        }
    }

    /// As [`Self::drain`], and takes connections for the time of `notice`, which is part of `limit`, as it did: so
    /// long may others take to hear that it ends.
    pub async fn drain_after(&self, notice: Duration, limit: Duration) {
        let notice = notice.min(limit);
        self.drain.cancel();
        time::sleep(notice).await;
        self.drain(limit - notice).await;
    }

    /// Takes no more connections, tells other agents so, and waits for those that are open, for at
    /// most `limit`; then they are cut off.
    pub async fn drain(&self, limit: Duration) {
        self.closed.cancel();
        self.tasks.close();
        let all = async {
            // Tunnels last: what was taken before may be on its way into one.
            self.tasks.wait().await;
            self.tunnels.drain().await;
        };
        if time::timeout(limit, all).await.is_ok() {
            return;
        }
        let connections = self.connections.close_all(&CloseReason::Drained);
        self.tunnels.close_matching(|_| true);
        let seconds = limit.as_secs();
        tracing::warn!(connections, "cut off after draining for {seconds}s");
        // Both ends of each are to see a reset, and its report is to be written.
        let cut_off = async {
            self.tunnels.drain().await;
            self.tasks.wait().await;
        };
        if time::timeout(CUT_OFF, cut_off).await.is_err() {
            let connections = self.connections.len();
            tracing::warn!(
                connections,
                "some tunnels or connections didn't end when cut off"
            );
        }
    }

    /// Tunnels that are open to other agents.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// Waits until the role has been draining for so long, or for as long from here, if it drains already.
    pub(crate) async fn drained_for(&self, patience: Duration) {
        self.drain.cancelled().await;
        time::sleep(patience).await;
    }

    /// Serves each connection of a listener in a task, until the role takes no more.
    pub(crate) async fn accept<F>(&self, listener: TcpListener, serve: impl Fn(TcpStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let (stream, _) = tokio::select! {
                () = self.closed.cancelled() => return,
                accepted = listening::accept(&listener) => accepted,
            };
            self.tasks.spawn(serve(stream));
            while Handle::current().metrics().global_queue_depth() > WAITING {
                task::yield_now().await;
            }
        }
    }

    /// A tunnel has proven what two certificates said when it was opened. New streams go into one of
    /// the newer certificate, so that nobody relies for longer than a certificate lives on what was
    /// proven once, and roots that are trusted no more are out of use soon. `None`: of anybody's.
    pub(crate) fn replace_tunnels(&self, renewed: Option<&Identity>) {
        self.tunnels
            .replace(|key| renewed.is_none_or(|renewed| *renewed == key.source));
    }
}
