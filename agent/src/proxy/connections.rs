//! The connections that are open through this agent or past it, and the end of those that a change forbids.

mod concern;
mod shares;
mod verdict;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::shares::{Share, Shares};
pub use self::{
    concern::Concern,
    shares::Limits,
    verdict::{CloseReason, End},
};
use crate::{
    discovery::{
        model::{ObjectName, Workload},
        store::Snapshot,
    },
    identity::Identity,
    millis,
    sharded::Sharded,
    telemetry::{Reporter, Transfer},
};

/// Default of the limit of open connections.
pub const DEFAULT_LIMIT: usize = 100_000;

/// An open connection: what policy needs to decide it again, and what `/connections` shows.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// Which end's agent this is.
    pub reporter: Reporter,
    /// The client, as proven by interface or certificate.
    pub source_identity: Option<Identity>,
    /// The client's workload, as it was when the connection was decided.
    pub source: Option<Arc<Workload>>,
    /// The client's own address.
    pub source_address: SocketAddr,
    /// The server's workload, as it was when the connection was decided.
    pub destination: Option<Arc<Workload>>,
    /// Address and port of the server, behind any service.
    pub destination_address: SocketAddr,
    /// The service that the client dialled.
    pub service: Option<ObjectName>,
    /// The waypoint that it should have gone through, as it was decided by the client's agent.
    pub waypoint: Option<ObjectName>,
    /// What policy is asked about it again.
    pub decided: Decided,
    /// Where the copy loop counts.
    pub transfer: Arc<Transfer>,
}

/// What is decided of a connection, and so has to be decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// Whether its client may connect to its server.
    ByServer,
    /// That, and whether its client may have what it asks the waypoint for: this address and port.
    AtWaypoint(SocketAddr),
    /// Nothing: its requests go to servers of their own, and each is decided by itself.
    ByRequest,
}

/// Why a connection may not be opened after all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The bound that keeps memory bounded.
    #[error(
        "this node's limit of {limit} open connections is reached; \
         http://127.0.0.1:15000/connections says who holds them, --max-connections raises it"
    )]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The bound that leaves something for other pods.
    #[error(
        "it has {open} open connections, as many as one pod may have where so few are left for others; \
         http://127.0.0.1:15000/connections lists them, --max-connections-per-pod and \
         --max-connections allow more"
    )]
    PodFull {
        /// Whose they are, if a pod's.
        pod: Option<ObjectName>,
        /// How many it has.
        open: usize,
    },
    /// The bound that keeps the process from being killed.
    #[error(
        "nearly all of the memory that its cgroup allows is in use: raise the container's memory limit, or \
         lower --max-connections to what it is enough for"
    )]
    NoMemory,
    /// Something changed between the decision and now.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// Every open connection of the node.
#[derive(Debug)]
pub struct Connections {
    node: Arc<str>,
    limits: Limits,
    shares: Shares,
    entries: Sharded<Entry>,
    /// What [`Self::reevaluate`] saw last.
    latest: ArcSwapOption<Snapshot>,
}

#[derive(Debug)]
struct Entry {
    connection: OpenConnection,
    opened: Instant,
    cancellation: CancellationToken,
    /// Set before `cancellation` is cancelled, and once only.
    closed_by: OnceLock<CloseReason>,
}

impl Connections {
    /// An empty set for the node of this name.
    #[must_use]
    pub fn new(node: Arc<str>, limits: Limits) -> Self {
        Self {
            node,
            limits,
            shares: Shares::default(),
            entries: Sharded::default(),
            latest: ArcSwapOption::empty(),
        }
    }

    /// Enters a connection that was allowed on `decided_on`. It leaves when the guard is dropped.
    ///
    /// A change that arrived between that decision and this call is applied here, so that no
    /// connection slips through between a decision and [`Self::reevaluate`].
    ///
    /// # Errors
    /// [`RegisterError`]: a limit is reached, or the connection is allowed no longer.
    pub fn register(
        self: &Arc<Self>,
        connection: OpenConnection,
        decided_on: &Snapshot,
    ) -> Result<ConnectionGuard, RegisterError> {
        let guard = self.enter(connection)?;
        // Loaded after the entry is in its place: `reevaluate` stores first and walks then, so one
        // of the two sees the other.
        if let Some(latest) = self.latest.load_full()
            && latest.generation() > decided_on.generation()
        {
            verdict::check_in(&latest, &self.node, &guard.entry.connection)?;
        }
        Ok(guard)
    }

    /// Decides again every open connection that a change concerns, and ends those that are allowed
    /// no longer, or whose workload is gone or has another identity. Returns how many it ended.
    ///
    /// Takes about a microsecond for each that it concerns, without waiting: not for an async worker
    /// thread where there are thousands. A connection to another node is decided there; here only
    /// its workloads are checked.
    pub fn reevaluate(&self, snapshot: &Arc<Snapshot>, concern: &Concern) -> usize {
        self.latest.store(Some(snapshot.clone()));
        self.close_where(|connection| {
            if !concern.includes(connection) {
                return None;
            }
            verdict::check_in(snapshot, &self.node, connection).err()
        })
    }

    /// Ends every open connection. Returns how many it ended.
    pub fn close_all(&self, reason: &CloseReason) -> usize {
        self.close_where(|_| Some(reason.clone()))
    }

    /// Every open connection, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<ConnectionView> {
        let mut entries = Vec::with_capacity(self.entries.len());
        self.entries.for_each(|entry| entries.push(entry.clone()));
        entries.sort_by_key(|entry| entry.opened);
        entries.iter().map(|entry| entry.view()).collect()
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn enter(
        self: &Arc<Self>,
        connection: OpenConnection,
    ) -> Result<ConnectionGuard, RegisterError> {
        let share = self.shares.take(&connection, self.limits)?;
        let entry = Arc::new(Entry {
            connection,
            opened: Instant::now(),
            cancellation: CancellationToken::new(),
            closed_by: OnceLock::new(),
        });
        let limit = self.limits.total;
        let key = self.entries.insert_below(limit, entry.clone());
        let key = key.ok_or(RegisterError::Full { limit })?;
        Ok(ConnectionGuard {
            connections: self.clone(),
            key,
            entry,
            _share: share,
        })
    }

    fn close_where(&self, reason: impl Fn(&OpenConnection) -> Option<CloseReason>) -> usize {
        let mut closed = 0;
        self.entries.for_each(|entry| {
            if let Some(reason) = reason(&entry.connection) {
                closed += usize::from(entry.close(reason));
            }
        });
        closed
    }
}

impl Entry {
    /// Whether this was the first reason to close it.
    fn close(&self, reason: CloseReason) -> bool {
        let connection = &self.connection;
        let text = reason.to_string();
        let first = self.closed_by.set(reason).is_ok();
        if first {
            tracing::info!(
                src.addr = %connection.source_address,
                dst.addr = %connection.destination_address,
                reason = text,
                "closing an open connection"
            );
        }
        self.cancellation.cancel();
        first
    }

    fn view(&self) -> ConnectionView {
        let connection = &self.connection;
        let name = |workload: &Arc<Workload>| workload.name.to_string();
        ConnectionView {
            reporter: connection.reporter,
            source: connection.source.as_ref().map(name),
            source_identity: connection.source_identity.as_ref().map(ToString::to_string),
            source_address: connection.source_address,
            destination: connection.destination.as_ref().map(name),
            destination_address: connection.destination_address,
            service: connection.service.as_ref().map(ToString::to_string),
            age: self.opened.elapsed(),
            bytes_sent: connection.transfer.sent(),
            bytes_received: connection.transfer.received(),
        }
    }
}

/// Keeps a connection in the set. Dropping it takes the connection out.
#[derive(Debug)]
#[must_use = "the connection leaves the set when this is dropped"]
pub struct ConnectionGuard {
    connections: Arc<Connections>,
    key: u64,
    entry: Arc<Entry>,
    _share: Share,
}

impl ConnectionGuard {
    /// Cancelled when the connection must end; [`Self::closed_by`] says why.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.entry.cancellation.clone()
    }

    /// Waits for what the connection needs before it can go on, unless it must end first.
    ///
    /// # Errors
    /// Why it must end.
    pub async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Result<T, CloseReason> {
        tokio::select! {
            biased;
            reason = self.closed() => Err(reason),
            done = work => Ok(done),
        }
    }

    async fn closed(&self) -> CloseReason {
        self.entry.cancellation.cancelled().await;
        // Set before the token is cancelled, so there is always one.
        self.closed_by().cloned().unwrap_or(CloseReason::Drained)
    }

    /// Why the connection must end, once [`Self::token`] is cancelled.
    #[must_use]
    pub fn closed_by(&self) -> Option<&CloseReason> {
        self.entry.closed_by.get()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.entries.remove(self.key);
    }
}

/// An open connection as the admin endpoint shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Which end's agent this is.
    pub reporter: Reporter,
    /// Namespace and name of the client's pod.
    pub source: Option<String>,
    /// The client's proven identity.
    pub source_identity: Option<String>,
    /// The client's own address.
    pub source_address: SocketAddr,
    /// Namespace and name of the server's pod.
    pub destination: Option<String>,
    /// Address and port of the server, behind any service.
    pub destination_address: SocketAddr,
    /// The service that the client dialled.
    pub service: Option<String>,
    /// Since it was opened; whole milliseconds in JSON.
    #[serde(rename = "age_ms", with = "millis")]
    pub age: Duration,
    /// Bytes from server to client.
    pub bytes_sent: u64,
    /// Bytes from client to server.
    pub bytes_received: u64,
}

#[cfg(test)]
mod tests;
