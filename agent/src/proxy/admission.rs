//! How much of what other agents (or anybody who reaches port 15008) bring is taken at once.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counts::{CountGuard, Counts, Full, Limits};
use crate::{
    identity::tls::{AcceptError, Protocols},
    telemetry::{Metrics, TunnelRefusal, log_limit::LogLimit},
};

/// Tunnels that other agents may have open to this node at once.
const MAX_TUNNELS: usize = 8192;

/// Above this many, clients are asked to share them: a direct tunnel carries one connection at a time.
const MAX_BEFORE_SHARING: usize = MAX_TUNNELS / 2;

/// Handshakes at once, of one address and of all. A handshake is done in milliseconds; those who
/// leave theirs unfinished must not keep others out.
const HANDSHAKES: Limits = Limits {
    per_key: 64,
    total: 1024,
};

/// Handshakes that fail are logged one by one, each for its own cause, but no more than so many in ten
/// seconds.
const FAILURES_LOGGED: u32 = 100;

/// Places for handshakes and tunnels.
#[derive(Debug)]
pub(super) struct Admission {
    handshakes: Arc<Counts<IpAddr>>,
    tunnels: Arc<Semaphore>,
    log: LogLimit,
    failures_log: LogLimit,
}

/// Why a tunnel isn't taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// One source has too many.
    #[error(
        "{} TLS handshakes from its address are under way, the most that one may have: its agent \
         is flooding, or many agents are behind one NAT address",
        HANDSHAKES.per_key
    )]
    Source,
    /// All together have too many.
    #[error("{} TLS handshakes are under way, the most that this node takes", HANDSHAKES.total)]
    Handshakes,
    /// Whoever has proven who they are have too many.
    #[error("{MAX_TUNNELS} tunnels are open, the most that this node takes")]
    Tunnels,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            handshakes: Arc::default(),
            tunnels: Arc::new(Semaphore::new(MAX_TUNNELS)),
            log: LogLimit::default(),
            failures_log: LogLimit::of(FAILURES_LOGGED),
        }
    }
}

impl Admission {
    /// A place for a handshake with `source`, until it is dropped.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn handshake(&self, source: IpAddr) -> Result<CountGuard<IpAddr>, Refused> {
        let place = self.handshakes.try_count(source, HANDSHAKES);
        place.map_err(|full| match full {
            Full::Key { .. } => Refused::Source,
            Full::Total => Refused::Handshakes,
        })
    }

    /// What the next tunnel may be.
    pub(super) fn protocols(&self) -> Protocols {
        if self.tunnels.available_permits() > MAX_TUNNELS - MAX_BEFORE_SHARING {
            Protocols::Any
        } else {
            Protocols::Http2
        }
    }

    /// A place for a tunnel, until it is dropped.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn tunnel(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let place = self.tunnels.clone().try_acquire_owned();
        place.map_err(|_| Refused::Tunnels)
    }

    /// Counts a source that was refused, and says so in the log, not each time.
    pub(super) fn refused(&self, metrics: &Metrics, source: IpAddr, refused: &Refused) {
        metrics.tunnel_refused(refused.counted());
        if let Some(unsaid) = self.log.admit() {
            tracing::warn!(%source, unsaid, "tunnel refused: {refused}");
        }
    }

    /// The same of a handshake that failed.
    pub(super) fn failed(&self, metrics: &Metrics, ends: [SocketAddr; 2], error: &AcceptError) {
        metrics.tunnel_refused(match error {
            AcceptError::Timeout => TunnelRefusal::Timeout,
            _ => TunnelRefusal::Handshake,
        });
        let [peer, local] = ends;
        if let Some(unsaid) = self.failures_log.admit() {
            tracing::warn!(%peer, %local, unsaid, "tunnel refused: {error}");
        }
    }
}

impl Refused {
    /// What is counted.
    fn counted(&self) -> TunnelRefusal {
        match self {
            Self::Source => TunnelRefusal::SourceLimit,
            Self::Handshakes => TunnelRefusal::HandshakeLimit,
            Self::Tunnels => TunnelRefusal::TunnelLimit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_with_all_its_handshakes_keeps_no_other_out() {
        let admission = Admission::default();
        let [flooder, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let held: Vec<_> = (0..HANDSHAKES.per_key)
            .map(|_| admission.handshake(flooder).unwrap())
            .collect();
        assert!(matches!(admission.handshake(flooder), Err(Refused::Source)));
        assert!(admission.handshake(other).is_ok());
        assert!(
            admission.tunnel().is_ok(),
            "handshakes take no tunnel's place"
        );
        drop(held);
        assert!(admission.handshake(flooder).is_ok());
    }
}
