//! One identity's certificate: a task that fetches, publishes, waits and renews.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, Semaphore, broadcast, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Clock,
    schedule::{backoff, next_renewal},
};
use crate::identity::{
    Identity, WorkloadCertificate,
    ca_client::{CertificateSource, Error},
};

/// A timer alone would sleep through a suspended machine; each pause is cut into such pieces.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the task has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The newest certificate, which may have expired.
    pub(super) certificate: Option<Arc<WorkloadCertificate>>,
    /// Since the entry was made.
    pub(super) renewals: u64,
    /// Since the entry was made.
    pub(super) failures: u64,
    /// The last attempt's, if it failed.
    pub(super) error: Option<Arc<Error>>,
}

/// Ends its task when dropped.
pub(super) struct Entry {
    pub(super) progress: watch::Receiver<Progress>,
    /// Has a renewal that isn't due yet be made now.
    pub(super) hasten: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// What every entry's task works with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) source: Arc<dyn CertificateSource>,
    pub(super) clock: Clock,
    /// One permit a fetch.
    pub(super) fetches: Arc<Semaphore>,
    /// Told of each certificate but an identity's first.
    pub(super) renewed: broadcast::Sender<Identity>,
}

impl Entry {
    /// Begins to fetch at once. Needs a tokio runtime.
    pub(super) fn new(identity: Identity, shared: Shared) -> Self {
        let (sender, progress) = watch::channel(Progress::default());
        let hasten = Arc::<Notify>::default();
        let task = tokio::spawn(keep(identity, shared, sender, hasten.clone()));
        Self {
            progress,
            hasten,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn keep(
    identity: Identity,
    shared: Shared,
    progress: watch::Sender<Progress>,
    hasten: Arc<Notify>,
) {
    let mut failures_in_row = 0;
    loop {
        let fetched = {
            // The semaphore is never closed.
            let _permit = shared.fetches.acquire().await;
            shared.source.fetch(&identity).await
        };
        let jitter = rand::random_range(-1.0..=1.0);
        let pause = match fetched {
            Ok(certificate) => {
                failures_in_row = 0;
                let now = (shared.clock)();
                let pause = next_renewal(
                    certificate.not_before(),
                    certificate.not_after(),
                    now,
                    jitter,
                );
                tracing::debug!(%identity, serial = certificate.serial(), ?pause, "new certificate");
                progress.send_modify(|progress| {
                    progress.certificate = Some(Arc::new(certificate));
                    progress.renewals += 1;
                    progress.error = None;
                });
                if progress.borrow().renewals > 1 {
                    // Fails only if nobody follows.
                    let _ = shared.renewed.send(identity.clone());
                }
                pause
            }
            Err(error) => {
                failures_in_row += 1;
                let pause = backoff(failures_in_row, jitter);
                tracing::warn!(%identity, %error, ?pause, "cannot get a certificate, will try again");
                progress.send_modify(|progress| {
                    progress.failures += 1;
                    progress.error = Some(Arc::new(error));
                });
                pause
            }
        };
        let due = wait(&shared.clock, pause);
        if failures_in_row > 0 {
            due.await;
            continue;
        }
        tokio::select! {
            () = due => {}
            () = hasten.notified() => {}
        }
    }
}

/// Waits until the timer or the clock says so, whichever is first: the clock goes on while a
/// machine is suspended, the timer when the clock is set back.
async fn wait(clock: &Clock, pause: Duration) {
    let (due, timer): (SystemTime, Instant) = (clock() + pause, Instant::now() + pause);
    while Instant::now() < timer && clock() < due {
        let left = timer.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}
