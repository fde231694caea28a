//! What is refused because there is too much of it: counted each time, said now and then.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus::proto::MetricFamily;

use super::{
    collector::{Family, Kind},
    log_limit::LogLimit,
};
use crate::discovery::model::ObjectName;

/// Pods counted by name; further ones count as `other`.
const PODS: usize = 1_000;

const CONNECTIONS: Family = Family {
    name: "ambit_connections_refused_total",
    help: "Application connections refused because there are too many: why, and which pod's.",
    kind: Kind::Counter,
    labels: &["reason", "pod"],
};
const TUNNELS: Family = Family {
    name: "ambit_tunnels_refused_total",
    help: "Connections to port 15008 that became no tunnel, and why.",
    kind: Kind::Counter,
    labels: &["reason"],
};

pub(super) const FAMILIES: &[&Family] = &[&CONNECTIONS, &TUNNELS];

/// Whose limit a connection would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The pod's.
    PodLimit,
    /// That of all.
    NodeLimit,
    /// The process's memory.
    Memory,
}

impl RefusalReason {
    /// Label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodLimit => "pod_limit",
            Self::NodeLimit => "node_limit",
            Self::Memory => "memory",
        }
    }
}

/// A connection that is one too many.
#[derive(Clone, Copy)]
pub struct Refusal<'a> {
    /// Why.
    pub reason: RefusalReason,
    /// The pod that it counts for, if it is known.
    pub pod: Option<&'a ObjectName>,
    /// In the operator's words, with the cure.
    pub error: &'a dyn fmt::Display,
}

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelRefusal {
    /// Its address has too many handshakes under way.
    SourceLimit,
    /// All together have.
    HandshakeLimit,
    /// Too many tunnels are open.
    TunnelLimit,
    /// The handshake took too long.
    Timeout,
    /// The handshake failed: what came wasn't TLS, or proved nobody that may have one.
    Handshake,
}

impl TunnelRefusal {
    const ALL: [Self; 5] = [
        Self::SourceLimit,
        Self::HandshakeLimit,
        Self::TunnelLimit,
        Self::Timeout,
        Self::Handshake,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::SourceLimit => "source_limit",
            Self::HandshakeLimit => "handshake_limit",
            Self::TunnelLimit => "tunnel_limit",
            Self::Timeout => "timeout",
            Self::Handshake => "handshake",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    connections: Mutex<HashMap<(RefusalReason, String), u64>>,
    tunnels: [AtomicU64; TunnelRefusal::ALL.len()],
    connection_log: LogLimit,
}

impl Refusals {
    pub(super) fn connection(&self, refusal: &Refusal<'_>) {
        let pod = refusal
            .pod
            .map_or_else(|| "unknown".to_owned(), ToString::to_string);
        if let Some(unsaid) = self.connection_log.admit() {
            tracing::warn!(pod, unsaid, "connection refused: {}", refusal.error);
        }
        let mut counts = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut key = (refusal.reason, pod);
        if counts.len() >= PODS && !counts.contains_key(&key) {
            key.1 = "other".to_owned();
        }
        *counts.entry(key).or_default() += 1;
    }

    pub(super) fn tunnel(&self, refusal: TunnelRefusal) {
        self.tunnels[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let counts = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let connections = counts.iter().map(|((reason, pod), count)| {
            ([reason.as_str().to_owned(), pod.clone()], *count as f64)
        });
        let tunnels = TunnelRefusal::ALL.map(|refusal| {
            let count = self.tunnels[refusal as usize].load(Ordering::Relaxed);
            ([refusal.as_str()], count as f64)
        });
        vec![CONNECTIONS.of(connections), TUNNELS.of(tunnels)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures::object;

    #[test]
    fn pods_beyond_the_limit_count_as_other() {
        let refusals = Refusals::default();
        let refuse = |number: usize| {
            let pod = object("shop", &format!("pod-{number}"));
            refusals.connection(&Refusal {
                reason: RefusalReason::PodLimit,
                pod: Some(&pod),
                error: &"too many",
            });
        };
        (0..PODS + 5).for_each(refuse);
        refuse(0);
        let families = refusals.collect();
        let counted = |pod: &str| {
            let mut all = families[0].get_metric().iter();
            let found = all.find(|metric| metric.get_label()[1].value() == pod);
            found.map(|metric| metric.get_counter().get_value())
        };
        assert_eq!(families[0].get_metric().len(), PODS + 1);
        assert_eq!(counted("other"), Some(5.0));
        assert_eq!(counted("shop/pod-0"), Some(2.0));
    }
}
