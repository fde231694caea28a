//! Which of several replicas leads, by a Lease.
//!
//! Ready-made managers of Leases compare the holder's clock with their own, and take a Lease over without saying
//! which version of it they saw; so this is our own. Here nobody's clock matters: a Lease has expired once it was
//! seen unchanged for as long as it is valid, and every write says what it replaces.

mod election;

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use self::election::{Election, Seen, Step};
use super::objects::named;

/// The Lease.
const LEASE: &str = "ambit-control";
/// For how long a Lease is valid: after a leader has died, what it did is left undone for as long. Certificates
/// aren't among it.
const VALID: Duration = Duration::from_secs(15);
/// A leader that hasn't renewed for as long stops. What is left until a successor may start is for requests that
/// are still under way.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews, and others look: several may fail before the leader changes.
const RETRY: Duration = Duration::from_secs(2);
/// How long a look and a write may take together: two attempts fit before the deadline.
const ATTEMPT: Duration = Duration::from_secs(4);

/// A name that no other process has: the pod's, which is its host name, and a part by chance, for a container that
/// is started again is another candidate.
#[must_use]
pub fn identity() -> String {
    let host = rustix::system::uname();
    let name = host.nodename().to_string_lossy().into_owned();
    format!("{name}_{:08x}", rand::random::<u32>())
}

/// Runs a task whenever this replica leads. It is dropped, wherever it awaits, when the replica leads no longer,
/// and begins anew when it leads again. Ends with [`Leadership::run`].
pub async fn while_leading<F>(mut leading: watch::Receiver<bool>, mut task: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let mut until = leading.clone();
        let lost = until.wait_for(|leads| !leads);
        let one_that_ends_waits = async {
            task().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = lost => {}
            () = one_that_ends_waits => {}
        }
    }
}

/// One candidate.
pub struct Leadership {
    leases: Api<Lease>,
    identity: Arc<str>,
    election: Election,
    leading: watch::Sender<bool>,
}

impl Leadership {
    /// Of the replicas that share a namespace. No two may have the same identity.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, identity: impl Into<Arc<str>>) -> Self {
        let identity = identity.into();
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            election: Election::new(Arc::clone(&identity), RENEW_DEADLINE),
            identity,
            leading: watch::Sender::new(false),
        }
    }

    /// Whether this candidate leads now; for [`while_leading`].
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Takes part until told to stop, and then lets others lead at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let takes_part = async {
            let mut told = None;
            loop {
                let failure = self.attempt().await.err();
                // Once for each thing that is wrong.
                if let Some(failure) = failure.as_ref().filter(|it| told.as_ref() != Some(*it)) {
                    tracing::warn!("Lease {LEASE}: {failure}; it is tried again");
                }
                told = failure;
                self.tell();
                time::sleep_until(self.no_later_than(RETRY)).await;
                self.tell();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = takes_part => {}
        }
        self.leave().await;
    }

    /// Looks at the Lease, and takes or renews it if that is this candidate's to do.
    async fn attempt(&mut self) -> Result<(), String> {
        let until = self.no_later_than(ATTEMPT);
        match time::timeout_at(until, self.look()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server takes too long".to_owned()),
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let found = self.leases.get_opt(LEASE).await?;
        let begun = Instant::now();
        let step = self.election.look(found.as_ref().map(seen), begun);
        let post = PostParams::default();
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(()),
            (Step::Write, None) => {
                let made = Lease {
                    metadata: named(LEASE),
                    spec: Some(self.claim(LeaseSpec::default())),
                };
                self.leases.create(&post, &made).await
            }
            (Step::Write, Some(mut lease)) => {
                lease.spec = Some(self.claim(lease.spec.unwrap_or_default()));
                self.leases.replace(LEASE, &post, &lease).await
            }
        };
        match written {
            Ok(lease) => self.election.written(seen(&lease), begun),
            // Somebody was faster: who, the next look tells.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the Lease says once it is this candidate's.
    fn claim(&self, mut spec: LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        if spec.holder_identity.as_deref() != Some(&*self.identity) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.holder_identity = Some(self.identity.to_string());
        }
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(VALID.as_secs()).ok();
        spec
    }

    /// After a pause, or when the Lease can't be counted on any more, if that is earlier.
    fn no_later_than(&self, pause: Duration) -> Instant {
        let at = Instant::now() + pause;
        self.election.deadline().map_or(at, |until| at.min(until))
    }

    fn tell(&mut self) {
        let leads = self.election.is_leading(Instant::now());
        let changed = self
            .leading
            .send_if_modified(|told| std::mem::replace(told, leads) != leads);
        match leads {
            true if changed => tracing::info!(identity = %self.identity, "leads"),
            false if changed => tracing::warn!(identity = %self.identity, "leads no longer"),
            _ => {}
        }
    }

    /// Stops leading, and says so.
    async fn leave(self) {
        let led = self.leading.send_replace(false);
        if !led {
            return;
        }
        let free = async {
            let mut lease = self.leases.get(LEASE).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&*self.identity)
            {
                spec.holder_identity = None;
                self.leases
                    .replace(LEASE, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        match time::timeout(ATTEMPT, free).await {
            Ok(Ok(())) => tracing::info!("left Lease {LEASE} to others"),
            Ok(Err(error)) => tracing::warn!("Lease {LEASE}: {error}; it expires by itself"),
            Err(_) => {
                tracing::warn!("Lease {LEASE}: the API server takes too long; it expires by itself")
            }
        }
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    let valid = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
    Seen {
        version: lease.metadata.resource_version.clone(),
        holder: holder.filter(|holder| !holder.is_empty()).map(Arc::from),
        valid: valid.map_or(VALID, Duration::from_secs),
    }
}

#[cfg(test)]
mod tests;
