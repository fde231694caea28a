//! The node's certificates: one for each identity that a local workload has.
//!
//! Fetched once however many ask, renewed at half of its life, kept until it expires if renewal
//! fails. [`schedule`] decides when.

mod entry;
pub mod schedule;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{Semaphore, broadcast, watch};

use self::entry::{Entry, Progress, Shared};
use super::{
    Identity, WorkloadCertificate,
    ca_client::{self, CertificateSource},
};

/// Identities at one time. A node has some hundreds of pods at most.
const MAX_IDENTITIES: usize = 4096;
/// Calls to the authority at one time.
const MAX_FETCHES: usize = 16;
/// Renewals that a follower may be behind with before it is told only that it is.
const RENEWALS: usize = 256;
/// How long a connection waits for an identity's first certificate. Half of what a client gives a
/// tunnel to be connected, so that it hears that there is no certificate, and not just silence.
const FIRST_ISSUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells the time; tests have one that goes with tokio's.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Why there is no certificate to show.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Attempts failed until the caller's time was up.
    #[error("no valid certificate for {identity}: {source}")]
    Failed {
        /// Whose.
        identity: Identity,
        /// The last attempt's failure.
        source: Arc<ca_client::Error>,
    },
    /// No attempt has ended.
    #[error(
        "no certificate for {identity} after {}s: the certificate authority hasn't answered yet",
        FIRST_ISSUE_TIMEOUT.as_secs()
    )]
    Timeout {
        /// Whose.
        identity: Identity,
    },
    /// The last workload with the identity has gone.
    #[error("no workload of this node has identity {identity} any more")]
    Forgotten {
        /// Whose.
        identity: Identity,
    },
    /// The cache is full.
    #[error("no certificate for {identity}: this node already has {MAX_IDENTITIES} identities")]
    TooMany {
        /// Whose.
        identity: Identity,
    },
}

/// What is known of one identity's certificate, for metrics and the admin endpoint.
#[derive(Debug, Clone)]
pub struct CertificateState {
    /// Whose.
    pub identity: Identity,
    /// The newest one; `None` until the first was issued. It may have expired.
    pub certificate: Option<Arc<WorkloadCertificate>>,
    /// Certificates issued, the first included.
    pub renewals: u64,
    /// Failed attempts.
    pub failures: u64,
    /// Why the last attempt failed, if it did.
    pub error: Option<Arc<ca_client::Error>>,
}

/// The cache. Cloning shares it.
#[derive(Clone)]
pub struct Certificates {
    shared: Shared,
    entries: Arc<Mutex<HashMap<Identity, Entry>>>,
}

impl Certificates {
    /// An empty cache over the system's clock.
    #[must_use]
    pub fn new(source: Arc<dyn CertificateSource>) -> Self {
        Self::with_clock(source, Arc::new(SystemTime::now))
    }

    /// An empty cache over another clock.
    #[must_use]
    pub fn with_clock(source: Arc<dyn CertificateSource>, clock: Clock) -> Self {
        Self {
            shared: Shared {
                source,
                clock,
                fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
                renewed: broadcast::Sender::new(RENEWALS),
            },
            entries: Arc::default(),
        }
    }

    /// The valid certificate of an identity; waits for the first one for up to 5 s.
    ///
    /// Ask for local workloads' identities only: each is fetched and renewed until
    /// [`Certificates::retain`] forgets it.
    ///
    /// # Errors
    /// [`Error`]: the last failure, if there is no valid certificate by then.
    pub async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, Error> {
        let mut progress = self.progress(identity)?;
        let known = progress.borrow_and_update().clone();
        if !self.is_current(&known) {
            self.hasten(identity);
        }
        if let Some(valid) = self.valid(&known) {
            return Ok(valid);
        }
        let first = async {
            loop {
                if progress.changed().await.is_err() {
                    return Err(Error::Forgotten {
                        identity: identity.clone(),
                    });
                }
                if let Some(valid) = self.valid(&progress.borrow_and_update()) {
                    return Ok(valid);
                }
            }
        };
        // Failed attempts don't end the wait: the authority often learns of a new pod a moment
        // after its node did.
        let waited = tokio::time::timeout(FIRST_ISSUE_TIMEOUT, first).await;
        waited.unwrap_or_else(|_| Err(self.failure(identity)))
    }

    /// The valid certificate of an identity if it is there already. Fetches nothing.
    #[cfg(test)]
    fn cached(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        let entries = self.lock();
        let progress = entries.get(identity)?.progress.borrow();
        self.valid(&progress)
    }

    /// Begins to fetch, so that the first connection needn't wait. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn prefetch(&self, identity: &Identity) -> Result<(), Error> {
        self.progress(identity).map(drop)
    }

    /// Tells of each identity whose certificate was replaced by a newer one, from now on.
    #[must_use]
    pub fn renewals(&self) -> broadcast::Receiver<Identity> {
        self.shared.renewed.subscribe()
    }

    /// Forgets every identity that no local workload has, and its key.
    pub fn retain(&self, mut is_local: impl FnMut(&Identity) -> bool) {
        self.lock().retain(|identity, _| is_local(identity));
    }

    /// Every identity's state, in no order.
    #[must_use]
    pub fn states(&self) -> Vec<CertificateState> {
        let entries = self.lock();
        let state = |(identity, entry): (&Identity, &Entry)| {
            let progress = entry.progress.borrow().clone();
            CertificateState {
                identity: identity.clone(),
                certificate: progress.certificate,
                renewals: progress.renewals,
                failures: progress.failures,
                error: progress.error,
            }
        };
        entries.iter().map(state).collect()
    }

    /// Follows an identity's task, which is started if there is none.
    fn progress(&self, identity: &Identity) -> Result<watch::Receiver<Progress>, Error> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(identity) {
            return Ok(entry.progress.clone());
        }
        if entries.len() >= MAX_IDENTITIES {
            return Err(Error::TooMany {
                identity: identity.clone(),
            });
        }
        let entry = Entry::new(identity.clone(), self.shared.clone());
        let progress = entry.progress.clone();
        entries.insert(identity.clone(), entry);
        Ok(progress)
    }

    fn valid(&self, progress: &Progress) -> Option<Arc<WorkloadCertificate>> {
        let certificate = progress.certificate.as_ref()?;
        ((self.shared.clock)() < certificate.not_after()).then(|| Arc::clone(certificate))
    }

    /// Whether the newest certificate is valid by our clock, which may have been set since it was issued.
    fn is_current(&self, progress: &Progress) -> bool {
        let now = (self.shared.clock)();
        let certificate = progress.certificate.as_ref();
        certificate.is_none_or(|it| (it.not_before()..it.not_after()).contains(&now))
    }

    /// Doesn't wait for a renewal to be due.
    fn hasten(&self, identity: &Identity) {
        if let Some(entry) = self.lock().get(identity) {
            // Only who waits for that is told: not who waits for the authority to be back.
            entry.hasten.notify_waiters();
        }
    }

    fn failure(&self, identity: &Identity) -> Error {
        let identity = identity.clone();
        let entries = self.lock();
        let progress = entries.get(&identity).map(|entry| entry.progress.borrow());
        match progress.and_then(|progress| progress.error.clone()) {
            Some(source) => Error::Failed { identity, source },
            None => Error::Timeout { identity },
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        // Nothing that is done under the lock leaves the map half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
