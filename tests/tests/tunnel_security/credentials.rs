//! Certificates that no authority would give out.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use ambit::identity::{
    Identity, WorkloadCertificate,
    authority::{CertificateAuthority, Settings},
    request::{CertificateRequest, NewRequest},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Whether a certificate is valid now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Life {
    Valid,
    Expired,
}

/// An authority of the test's own.
pub(crate) struct Forger(CertificateAuthority);

impl Forger {
    /// On a copy of an authority's root: what whoever steals it has.
    pub(crate) fn with_root_of(state: &Path, directory: &Path, trust_domain: &str) -> Self {
        fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
        for entry in fs::read_dir(state).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
        }
        Self::open(directory, trust_domain)
    }

    /// On a root that nobody else trusts.
    pub(crate) fn foreign(directory: &Path) -> Self {
        Self::open(directory, "cluster.local")
    }

    fn open(directory: &Path, trust_domain: &str) -> Self {
        let settings = Settings {
            trust_domain: trust_domain.into(),
            ..Settings::default()
        };
        Self(CertificateAuthority::open(directory, settings, SystemTime::now()).unwrap())
    }

    /// A certificate whose holder checks others against the roots of `trusts`.
    pub(crate) fn certificate(
        &self,
        identity: &Identity,
        life: Life,
        trusts: &Forger,
    ) -> WorkloadCertificate {
        let issued = match life {
            Life::Valid => SystemTime::now(),
            Life::Expired => SystemTime::now() - Duration::from_secs(3600),
        };
        let request = NewRequest::generate(identity).unwrap();
        let parsed = CertificateRequest::parse(&request.pem).unwrap();
        let minute = Some(Duration::from_secs(60));
        let signed = self.0.sign(&parsed, identity, minute, issued).unwrap();
        let leaf = CertificateDer::from_pem_slice(signed[0].as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(trusts.0.trust_bundle().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        WorkloadCertificate::new(identity.clone(), &request.key, vec![leaf], roots).unwrap()
    }
}

/// The identity of a service account in namespace `shop`.
pub(crate) fn account(name: &str) -> Identity {
    Identity::new("cluster.local", "shop", name)
}
