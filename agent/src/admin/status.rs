//! How the agent is, at `/status`.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::views::CertificateView;
use crate::discovery::{
    model::{Enrolment, Workload, WorkloadUid},
    store::Snapshot,
};

/// How an agent is, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The agent's own version.
    pub version: String,
    /// Its node.
    pub node: String,
    /// What tells it from another agent of the node, if it was told.
    pub instance: Option<String>,
    /// Since it was started.
    pub uptime_seconds: u64,
    /// Conditions of its readiness, and which of them hold. It is ready if all do.
    pub conditions: BTreeMap<String, bool>,
    /// Where it learns what the mesh is.
    pub source: SourceView,
    /// What it captures.
    pub capture: CaptureView,
    /// Whether bytes go past TCP.
    pub splice: SpliceView,
    /// Open connections.
    pub connections: usize,
    /// Open tunnels.
    pub tunnels: TunnelsView,
    /// Certificates of the node's pods.
    pub certificates: CertificatesView,
    /// Objects that can't be used as they are.
    pub problems: usize,
}

impl StatusView {
    /// The conditions that don't hold, by name. None: ready.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let missing = self.conditions.iter().filter(|(_, holds)| !**holds);
        missing.map(|(name, _)| name.as_str())
    }
}

/// Where an agent learns what the mesh is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// `directory` or `kubernetes`.
    pub kind: String,
    /// The path, or the server's URL.
    pub location: String,
    /// Whether changes arrive. If they don't, the last state serves.
    pub in_sync: bool,
    /// Why they don't, if they don't.
    pub reason: Option<String>,
}

/// What an agent captures on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureView {
    /// Pods of the node that take part in the mesh.
    pub enrolled_pods: usize,
    /// Those of them whose interface is known, so that their traffic is the mesh's.
    pub captured_pods: usize,
    /// Pods of the node, enrolled or not, whose interface isn't known: their new connections wait.
    pub waiting: Vec<WaitingPodView>,
    /// Addresses and VIPs that the eBPF maps have no room for. Above 0 every connection of
    /// enrolled pods is captured.
    pub entries_left_out: usize,
}

/// A pod whose interface isn't known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPodView {
    /// Namespace and name.
    pub name: String,
    /// Why not, as far as is known.
    pub reason: String,
}

impl CaptureView {
    /// The node's pods of a snapshot. `is_bound` says whether a pod's interface is known.
    #[must_use]
    pub fn of(
        snapshot: &Snapshot,
        node: &str,
        is_bound: impl Fn(&WorkloadUid) -> bool,
        entries_left_out: usize,
    ) -> Self {
        let pods = || snapshot.local_workloads(node);
        let captured = pods().filter(|pod| pod.is_enrolled() && is_bound(&pod.uid));
        let unbound =
            pods().filter(|pod| pod.enrolment != Enrolment::HostNetwork && !is_bound(&pod.uid));
        let mut waiting: Vec<_> = unbound
            .map(|pod| WaitingPodView {
                name: pod.name.to_string(),
                reason: reason_to_wait(pod, snapshot),
            })
            .collect();
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            enrolled_pods: pods().filter(|pod| pod.is_enrolled()).count(),
            captured_pods: captured.count(),
            waiting,
            entries_left_out,
        }
    }
}

fn reason_to_wait(pod: &Workload, snapshot: &Snapshot) -> String {
    let holder = |address: &IpAddr| {
        let holder = snapshot.workload_by_address(*address)?;
        (holder.uid != pod.uid).then_some((*address, holder))
    };
    if pod.terminating {
        "it is being deleted".to_owned()
    } else if pod.addresses.is_empty() {
        "it has no address yet (status.podIPs)".to_owned()
    } else if let Some((address, holder)) = pod.addresses.iter().find_map(holder) {
        format!("{} has its address {address}", holder.name)
    } else {
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        format!(
            "none of the node's interfaces leads to {}, or more than one does",
            addresses.join(", ")
        )
    }
}

/// Whether bytes go from socket to socket past TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpliceView {
    /// Whether they do, where both ends can bear it.
    pub active: bool,
    /// Why not, if they don't.
    pub reason: Option<String>,
}

/// Tunnels that are open, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelsView {
    /// From this agent to others.
    pub outbound: usize,
    /// From others to this agent.
    pub inbound: usize,
}

/// Certificates of a node's pods, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatesView {
    /// Identities that have one which is valid.
    pub valid: usize,
    /// Identities that have none, or only one that has expired.
    pub missing: usize,
    /// Identities whose last request brought none.
    pub failing: usize,
    /// When the first of the valid ones ends, RFC 3339.
    pub soonest_expiry: Option<String>,
}

impl CertificatesView {
    /// Counts them.
    #[must_use]
    pub fn of(certificates: &[CertificateView], now: Timestamp) -> Self {
        let ends = certificates.iter().filter_map(CertificateView::end);
        let valid: Vec<Timestamp> = ends.filter(|end| *end > now).collect();
        Self {
            valid: valid.len(),
            missing: certificates.len() - valid.len(),
            failing: certificates.iter().filter(|it| it.error.is_some()).count(),
            soonest_expiry: valid.iter().min().map(ToString::to_string),
        }
    }
}

#[cfg(test)]
mod tests;
