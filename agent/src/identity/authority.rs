//! The certificate authority: a root key on disk, certificates for workloads, root rotation.
//!
//! `rotation` decides, `store` writes, `root` signs. Signing takes no lock.

mod given;
mod root;
pub mod rotation;
mod settings;
mod store;

use std::{
    iter,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::{
    given::Material,
    rotation::{Root, Stage},
    settings::Settings,
};
use self::{
    root::{CLOCK_SKEW, Signer},
    rotation::{Schedule, Step},
    store::RootStore,
};
use super::{
    Identity,
    files::FileError,
    request::{CertificateRequest, PrivateKey},
};

/// A failed rotation step is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);

/// Why the authority can't start, sign or rotate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings contradict each other.
    #[error("{0}")]
    Settings(String),
    /// The state directory is unusable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A state file was changed by hand or damaged.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or remove the whole directory to \
         start with a new root that no agent trusts yet",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two authorities on one directory would overwrite each other's roots.
    #[error("{path} is in use by another certificate authority", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The root ran out, and rotation has failed so far.
    #[error("root {0} has expired, and no other is ready")]
    RootExpired(String),
    /// The request names somebody else.
    #[error("the certificate request names {requested}, but {authorised} was asked for")]
    OtherIdentity {
        /// The name in the request.
        requested: Identity,
        /// The name that the caller is authorised for.
        authorised: Identity,
    },
    /// An identity of somebody else's authority.
    #[error("{identity} is not of trust domain {trust_domain}, which this authority signs for")]
    TrustDomain {
        /// The identity asked for.
        identity: Identity,
        /// Ours.
        trust_domain: String,
    },
    /// What somebody else keeps can't be used.
    #[error("the authority's key as it was given, {field}: {reason}")]
    Given {
        /// As a Secret names it.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The cryptography failed.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Signs for the identities of one trust domain.
pub struct CertificateAuthority {
    settings: Settings,
    /// `None`: somebody else keeps the key, and rotates.
    kept: Option<Kept>,
    current: ArcSwap<Current>,
    rotation_due: Notify,
    rotation_failures: AtomicU64,
}

/// Roots of its own.
struct Kept {
    schedule: Schedule,
    /// The state on disk and what it says. Locked for each change of roots, never to sign.
    store: Mutex<RootStore>,
}

/// What signing needs, swapped as a whole when roots change.
struct Current {
    root: String,
    not_after: SystemTime,
    signer: Signer,
    /// PEM of the signer and what is between it and a root; none if it is one.
    issuers: Vec<String>,
    /// PEM of every trusted root, the active one first.
    bundle: Vec<String>,
}

impl CertificateAuthority {
    /// Opens the state directory, or makes it with a first root.
    ///
    /// # Errors
    /// If settings contradict each other, if the directory or a key can be used by others, is in
    /// use or is damaged.
    pub fn open(directory: &Path, settings: Settings, now: SystemTime) -> Result<Self, Error> {
        let schedule = settings.check()?;
        let mut store = RootStore::open(directory)?;
        store.extend_longest(settings.certificate_ttl);
        while rotate(&mut store, &settings, &schedule, now, false)? {}
        store.save()?;
        Ok(Self {
            current: ArcSwap::from_pointee(Current::load(&store)?),
            settings,
            kept: Some(Kept {
                schedule,
                store: Mutex::new(store),
            }),
            rotation_due: Notify::new(),
            rotation_failures: AtomicU64::new(0),
        })
    }

    /// Signs with a key that somebody else keeps.
    ///
    /// # Errors
    /// [`Error::Given`]; settings that contradict each other.
    pub fn with_given(material: &Material, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self {
            current: ArcSwap::from_pointee(material.load()?),
            settings,
            kept: None,
            rotation_due: Notify::new(),
            rotation_failures: AtomicU64::new(0),
        })
    }

    /// Signs with another one from now on.
    ///
    /// # Errors
    /// [`Error::Given`]: then with the old one, as before.
    pub fn replace_given(&self, material: &Material) -> Result<(), Error> {
        self.current.store(Arc::new(material.load()?));
        Ok(())
    }

    /// Signs a workload's certificate: chain in PEM, leaf first, then every trusted root, the
    /// one that signed before the others.
    ///
    /// It lives for `validity` if that is shorter than the configured life, and from an hour ago, for
    /// peers whose clock is behind.
    ///
    /// # Errors
    /// [`Error::OtherIdentity`], [`Error::TrustDomain`], [`Error::RootExpired`].
    pub fn sign(
        &self,
        request: &CertificateRequest,
        identity: &Identity,
        validity: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        if let Some(requested) = request.identity()
            && requested != identity
        {
            return Err(Error::OtherIdentity {
                requested: requested.clone(),
                authorised: identity.clone(),
            });
        }
        if identity.trust_domain() != self.settings.trust_domain {
            return Err(Error::TrustDomain {
                identity: identity.clone(),
                trust_domain: self.settings.trust_domain.clone(),
            });
        }
        let current = self.current.load();
        let ttl = validity.map_or(self.settings.certificate_ttl, |asked| {
            asked.min(self.settings.certificate_ttl)
        });
        let not_after = current.end_of_life(now, ttl)?;
        let leaf = current.signer.sign_workload(
            &request.public_key,
            identity,
            now - CLOCK_SKEW,
            not_after,
        )?;
        let mut chain = vec![leaf.pem()];
        chain.extend(current.issuers.iter().chain(&current.bundle).cloned());
        Ok(chain)
    }

    /// A certificate for the authority's own TLS server, of the configured life, and its end.
    pub(super) fn sign_server(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<ServerCertificate, Error> {
        let current = self.current.load();
        let not_after = current.end_of_life(now, self.settings.certificate_ttl)?;
        let (certificate, key) = current
            .signer
            .sign_server(names, now - CLOCK_SKEW, not_after)?;
        let issuers = current.issuers.iter();
        let issuers = issuers.filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        Ok(ServerCertificate {
            chain: iter::once(certificate.der().clone())
                .chain(issuers)
                .collect(),
            key,
            not_after,
        })
    }

    /// Every trusted root in PEM, the active one first.
    #[must_use]
    pub fn trust_bundle(&self) -> String {
        self.current.load().bundle.concat()
    }

    /// Its own roots and where each stands, for operators.
    #[must_use]
    pub fn roots(&self) -> Vec<Root> {
        let kept = self.kept.iter();
        kept.flat_map(|kept| kept.lock().roots().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Begins a rotation as if the root were about to expire. Does nothing if one is under way.
    ///
    /// # Errors
    /// If the new root can't be written.
    pub fn rotate_now(&self, now: SystemTime) -> Result<(), Error> {
        self.advance_with(now, true)?;
        self.rotation_due.notify_one();
        Ok(())
    }

    /// Does what is due, and says when something will be again.
    ///
    /// # Errors
    /// If the change can't be written; the roots in use stay as they were.
    pub fn advance(&self, now: SystemTime) -> Result<Option<SystemTime>, Error> {
        self.advance_with(now, false)
    }

    /// How often what was due of a rotation couldn't be done.
    #[must_use]
    pub fn rotation_failures(&self) -> u64 {
        self.rotation_failures.load(Ordering::Relaxed)
    }

    /// Rotates roots when their time comes, until cancelled.
    pub async fn run(self: Arc<Self>, cancellation: CancellationToken) {
        loop {
            let authority = Arc::clone(&self);
            let step =
                tokio::task::spawn_blocking(move || authority.advance(SystemTime::now())).await;
            let pause = match step {
                Ok(Ok(due)) => until(due),
                Ok(Err(error)) => {
                    self.rotation_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "root rotation failed, the roots stay as they are");
                    RETRY
                }
                // The task panicked or the runtime is ending.
                Err(error) => {
                    tracing::error!(%error, "root rotation ended early");
                    RETRY
                }
            };
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.rotation_due.notified() => {}
            }
        }
    }

    fn advance_with(
        &self,
        now: SystemTime,
        mut requested: bool,
    ) -> Result<Option<SystemTime>, Error> {
        let Some(kept) = &self.kept else {
            return Ok(None);
        };
        let mut store = kept.lock();
        let mut draft = store.clone_records();
        loop {
            match rotate(&mut store, &self.settings, &kept.schedule, now, requested) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    std::mem::swap(&mut draft, store.records_mut());
                    return Err(error);
                }
            }
            draft = store.clone_records();
            requested = false;
        }
        // Compared by content, so that a load that failed once is made up for.
        if self.current.load().bundle != store.bundle() {
            self.current.store(Arc::new(Current::load(&store)?));
        }
        Ok(rotation::next_due(
            &store.roots().cloned().collect::<Vec<_>>(),
            &kept.schedule,
        ))
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, RootStore> {
        // Records are restored before an error leaves; a panic in between loses only a draft.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the authority's TLS server shows.
pub(super) struct ServerCertificate {
    /// The leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKey,
    pub(super) not_after: SystemTime,
}

impl Current {
    fn load(store: &RootStore) -> Result<Self, Error> {
        let (active, signer) = store.signer()?;
        Ok(Self {
            root: active.root.id.clone(),
            not_after: active.root.not_after,
            signer,
            issuers: Vec::new(),
            bundle: store.bundle(),
        })
    }

    /// No certificate outlives its root.
    fn end_of_life(&self, now: SystemTime, ttl: Duration) -> Result<SystemTime, Error> {
        if self.not_after <= now {
            return Err(Error::RootExpired(self.root.clone()));
        }
        Ok((now + ttl).min(self.not_after))
    }
}

/// Takes one step if one is due, and saves it.
fn rotate(
    store: &mut RootStore,
    settings: &Settings,
    schedule: &Schedule,
    now: SystemTime,
    requested: bool,
) -> Result<bool, Error> {
    let roots: Vec<Root> = store.roots().cloned().collect();
    let Some(step) = rotation::next_step(&roots, schedule, now, requested) else {
        return Ok(false);
    };
    match step {
        Step::Create(stage) => {
            let record = store.create(settings, stage, now)?;
            tracing::info!(root = record.root.id, ?stage, "made a root");
            // An expired root that was never replaced trusts nothing any more.
            store
                .records_mut()
                .retain(|old| old.root.stage != Stage::Active || old.root.not_after > now);
            store.records_mut().push(record);
            store.save()?;
        }
        Step::Activate(id) => {
            tracing::info!(root = id, "root signs from now on");
            store.change_roots(|roots| rotation::activate(roots, &id, schedule, now));
            store.save()?;
            store.remove_unused_keys();
        }
        Step::Drop(id) => {
            tracing::info!(root = id, "root is trusted no more");
            store.records_mut().retain(|record| record.root.id != id);
            store.save()?;
            store.remove_unused_keys();
        }
    }
    Ok(true)
}

/// From now; an hour at most, so that a clock that was set is noticed.
fn until(due: Option<SystemTime>) -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    due.map_or(LONGEST, |due| {
        due.duration_since(SystemTime::now()).unwrap_or_default()
    })
    .min(LONGEST)
}

#[cfg(test)]
mod tests;
