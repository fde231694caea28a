//! How much of what other agents (or anybody who reaches port 15008) bring is taken at once.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counts::{CountGuard, Counts, Full, Limits};
use crate::identity::tls::Protocols;

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

/// At most one refusal in this time is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Places for handshakes and tunnels.
#[derive(Debug)]
pub(super) struct Admission {
    handshakes: Arc<Counts<IpAddr>>,
    tunnels: Arc<Semaphore>,
    log: Mutex<LogLimit>,
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
            log: Mutex::default(),
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
            Full::Key => Refused::Source,
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

    /// Says in the log that a source was refused, not each time.
    pub(super) fn log(&self, source: IpAddr, refused: &Refused) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsaid) = log.admit(Instant::now()) {
            tracing::warn!(%source, unsaid, "tunnel refused: {refused}");
        }
    }
}

/// Lets one line through in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct LogLimit {
    last: Option<Instant>,
    unsaid: u64,
}

impl LogLimit {
    /// Whether to log now: how many were left out since the last time.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + LOG_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
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

    #[test]
    fn one_refusal_in_a_while_is_logged_with_the_count_of_the_others() {
        let (mut log, start) = (LogLimit::default(), Instant::now());
        assert_eq!(log.admit(start), Some(0));
        assert_eq!(log.admit(start), None);
        assert_eq!(log.admit(start + LOG_INTERVAL / 2), None);
        assert_eq!(log.admit(start + LOG_INTERVAL), Some(2));
        assert_eq!(log.admit(start + 2 * LOG_INTERVAL), Some(0));
    }
}
