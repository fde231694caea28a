//! A workload's certificate with its key and the roots its peers are checked against.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, pki_types::CertificateDer, sign::CertifiedKey,
};

use super::{Identity, request::PrivateKey, tls, x509};

/// Issued once, shared by every connection until its successor is there.
///
/// The key is held by the cryptography library alone, which wipes it when dropped.
pub struct WorkloadCertificate {
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    client: ClientConfig,
    server: Arc<ServerConfig>,
}

/// Why a key and a chain make no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The leaf can't be read.
    #[error(transparent)]
    Certificate(#[from] x509::CertificateError),
    /// A root, the key or their fit was refused.
    #[error("the TLS library refuses the certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// Client certificates can't be checked against the roots.
    #[error("the trust bundle is unusable: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

impl WorkloadCertificate {
    /// Puts a certificate together and builds its TLS configurations. Checks that key and chain
    /// fit, not that the chain is to be trusted.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(
        identity: Identity,
        key: &PrivateKey,
        chain: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
    ) -> Result<Self, BuildError> {
        let leaf = chain.first().ok_or(x509::CertificateError::Missing)?;
        let facts = x509::facts(leaf)?;
        let certified = CertifiedKey::new(chain.clone(), key.signing_key()?);
        certified.keys_match()?;
        let certified = Arc::new(certified);
        let roots = Arc::new(roots);
        Ok(Self {
            not_before: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
            client: tls::client_template(Arc::clone(&certified), &roots, &identity)?,
            server: Arc::new(tls::server_template(
                certified,
                &roots,
                identity.trust_domain(),
            )?),
            identity,
            chain,
            roots,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Valid from.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Valid until.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Serial number, lower-case hexadecimal.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The chain that is shown to peers, leaf first, without the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots that peers are checked against.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(super) fn client_template(&self) -> &ClientConfig {
        &self.client
    }

    pub(super) fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
