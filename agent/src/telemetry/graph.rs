//! Who talks to whom, and how that fares: the series of the metrics, as the web page draws them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{
    Metrics, Reporter, ResponseFlags,
    requests::Sums,
    series::{Peer, SeriesLabels},
    traffic::Counters,
};

/// Every edge that is known. All counts begin with the process, and none goes down but that of what
/// is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphView {
    /// Upper bounds of the classes of [`RequestsView::durations`] but the last, in milliseconds.
    pub duration_bounds_ms: Vec<f64>,
    /// In the order of their ends' names. As many as there are series of metrics at most.
    pub edges: Vec<EdgeView>,
}

/// What goes from one workload to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeView {
    /// Who tells of it. Agents of both ends tell of the same connections.
    pub reporter: Reporter,
    /// The client.
    pub source: EndView,
    /// The server.
    pub destination: EndView,
    /// Namespace and name of the service that clients dial.
    pub service: Option<String>,
    /// Whether both identities are proven.
    pub secured: bool,
    /// Its connections.
    pub connections: ConnectionsView,
    /// Its requests, as far as this is a waypoint.
    pub requests: RequestsView,
}

/// One end, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndView {
    /// The workload's namespace.
    pub namespace: Option<String>,
    /// The workload: a Deployment, for most.
    pub workload: Option<String>,
    /// Its proven identity.
    pub identity: Option<String>,
}

/// Connections in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsView {
    /// All so far, those that were refused among them.
    pub opened: u64,
    /// Those that are open now.
    pub open: u64,
    /// Those that policy refused or ended.
    pub denied: u64,
    /// Those that failed otherwise.
    pub failed: u64,
    /// Those between pods of the node, as the client's agent knows: they never leave it.
    pub local: u64,
    /// Those that went from pod to pod in the kernel.
    pub passed: u64,
    /// Bytes from server to client.
    pub bytes_sent: u64,
    /// Bytes from client to server.
    pub bytes_received: u64,
    /// Mean round trip time of those that have ended and were measured, in microseconds.
    pub rtt_us: Option<u64>,
    /// Segments that those sent again.
    pub retransmits: u64,
}

/// Requests in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsView {
    /// All so far.
    pub total: u64,
    /// Those whose answer says that the server is at fault, and those without an answer.
    pub errors: u64,
    /// Those that policy refused.
    pub denied: u64,
    /// How many took as long as each class says.
    pub durations: Vec<u64>,
}

impl Metrics {
    /// Who talks to whom.
    #[must_use]
    pub fn graph(&self) -> GraphView {
        let of_connections = self.traffic.series().into_iter().map(|(labels, counters)| {
            let mut edge = EdgeView::of(&labels);
            edge.connections = ConnectionsView::of(&counters);
            edge
        });
        let of_requests = self.requests.sums().into_iter().map(|(labels, sums)| {
            let mut edge = EdgeView::of(&labels);
            edge.requests = RequestsView::of(sums);
            edge
        });
        let mut edges: Vec<_> = of_connections.chain(of_requests).collect();
        edges.sort_by(|a, b| {
            let ends = |it: &EdgeView| (it.source.clone(), it.destination.clone());
            let by_ends = ends(a).cmp(&ends(b));
            by_ends.then_with(|| a.service.cmp(&b.service))
        });
        GraphView {
            duration_bounds_ms: Sums::bounds().to_vec(),
            edges,
        }
    }
}

impl EdgeView {
    fn of(labels: &SeriesLabels) -> Self {
        Self {
            reporter: labels.reporter,
            source: EndView::of(&labels.source),
            destination: EndView::of(&labels.destination),
            service: labels.service.as_ref().map(ToString::to_string),
            secured: labels.secured,
            connections: ConnectionsView::default(),
            requests: RequestsView::default(),
        }
    }
}

impl EndView {
    fn of(peer: &Peer) -> Self {
        let workload = peer.workload.as_ref();
        Self {
            namespace: workload.map(|(namespace, _)| namespace.to_string()),
            workload: workload.map(|(_, names)| names.workload.to_string()),
            identity: peer.principal.as_ref().map(ToString::to_string),
        }
    }
}

impl ConnectionsView {
    fn of(counters: &Counters) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Before those that were opened, so that no fewer are open than none.
        let closed = ResponseFlags::ALL.map(|flags| read(&counters.closed[flags.index()]));
        let (all, denied) = (closed.iter().sum(), closed[ResponseFlags::Deny.index()]);
        let opened = read(&counters.opened);
        let measured = read(&counters.measured);
        Self {
            opened,
            open: opened.saturating_sub(all),
            denied,
            failed: all - denied - closed[ResponseFlags::None.index()],
            local: read(&counters.local),
            passed: read(&counters.passed),
            bytes_sent: read(&counters.sent),
            bytes_received: read(&counters.received),
            rtt_us: read(&counters.round_trips).checked_div(measured),
            retransmits: read(&counters.retransmitted),
        }
    }
}

impl RequestsView {
    fn of(sums: Sums) -> Self {
        Self {
            total: sums.durations.iter().sum(),
            errors: sums.errors,
            denied: sums.denied,
            durations: sums.durations,
        }
    }
}

#[cfg(test)]
mod tests;
