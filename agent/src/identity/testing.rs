//! An authority in a temporary directory, for tests that need real certificates.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    Identity, WorkloadCertificate,
    authority::{CertificateAuthority, Settings},
    ca_client::{CertificateSource, Error},
    request::{CertificateRequest, NewRequest},
};

/// Removed with everything in it when dropped.
pub(crate) struct TestAuthority {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) directory: tempfile::TempDir,
}

impl TestAuthority {
    /// Signs for `cluster.local`.
    pub(crate) fn new() -> Self {
        Self::of("cluster.local")
    }

    /// Signs for this trust domain.
    pub(crate) fn of(trust_domain: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            trust_domain: trust_domain.to_owned(),
            ..Settings::default()
        };
        // Older than any certificate that a test wants to have expired.
        let since = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
        let authority =
            CertificateAuthority::open(&directory.path().join("ca"), settings, since).unwrap();
        Self {
            authority: Arc::new(authority),
            directory,
        }
    }

    /// The file with the trusted roots.
    pub(crate) fn root_file(&self) -> std::path::PathBuf {
        self.directory.path().join("ca/trust-bundle.pem")
    }

    /// A certificate of one hour.
    pub(crate) fn issue(&self, identity: &Identity) -> WorkloadCertificate {
        self.issue_at(identity, SystemTime::now(), Duration::from_secs(3600), &[])
    }

    /// A certificate issued at some time, whose owner trusts other authorities too.
    pub(crate) fn issue_at(
        &self,
        identity: &Identity,
        now: SystemTime,
        life: Duration,
        others: &[&TestAuthority],
    ) -> WorkloadCertificate {
        let new = NewRequest::generate(identity).unwrap();
        let request = CertificateRequest::parse(&new.pem).unwrap();
        let chain = self
            .authority
            .sign(&request, identity, Some(life), now)
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        let mut bundle = chain[1..].concat();
        for other in others {
            bundle += &other.authority.trust_bundle();
        }
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        WorkloadCertificate::new(identity.clone(), &new.key, vec![leaf], roots).unwrap()
    }
}

/// Issues without a network.
impl CertificateSource for TestAuthority {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        Box::pin(async move { Ok(self.issue(identity)) })
    }
}

/// `spiffe://cluster.local/ns/shop/sa/<account>`.
pub(crate) fn shop(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}
