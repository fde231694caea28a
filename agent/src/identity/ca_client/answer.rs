//! Whether the authority's answer is the certificate that was asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
};

use crate::identity::{
    Identity, WorkloadCertificate,
    request::NewRequest,
    tls::verify_chain,
    workload_certificate::BuildError,
    x509::{self, CertificateError, peer_identity},
};

/// A longer chain is refused before it is read.
const MAX_CERTIFICATES: usize = 32;

/// Why an answer isn't used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not PEM.
    #[error("entry {0} of the chain is not a PEM certificate")]
    NotPem(usize),
    /// Nothing to trust, or too much.
    #[error("the chain has {0} certificates, where a leaf and at least one root are due")]
    Length(usize),
    /// Unreadable, or without identity.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Somebody else's.
    #[error("it is for {presented}, not for {expected}")]
    OtherIdentity {
        /// Asked for.
        expected: Identity,
        /// Given.
        presented: Identity,
    },
    /// Not the key that we hold.
    #[error("it is for another key than the request's")]
    OtherKey,
    /// Expired, or a clock is wrong.
    #[error(
        "it is valid from {from} to {to} (Unix time), which doesn't include now ({now}): a clock \
         is wrong"
    )]
    NotValidNow {
        /// Seconds.
        from: u64,
        /// Seconds.
        to: u64,
        /// Seconds.
        now: u64,
    },
    /// Its own roots don't verify it.
    #[error("the leaf doesn't verify to the roots that came with it: {0}")]
    Chain(rustls::Error),
    /// Key and certificate don't fit together.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Checks an answer and puts the certificate together.
///
/// The roots in the answer become the trust bundle. That is sound only because the answer came
/// over a connection whose server was verified against the root file. Ours sends every trusted
/// root after the leaf; istiod sends intermediates and one root, last.
///
/// # Errors
/// [`AnswerError`].
pub(super) fn check(
    answer: &[String],
    identity: &Identity,
    request: &NewRequest,
    now: UnixTime,
) -> Result<WorkloadCertificate, AnswerError> {
    let (leaf, issuers) = split(answer)?;
    let facts = x509::facts(&leaf)?;
    if facts.public_key != request.public_key {
        return Err(AnswerError::OtherKey);
    }
    let presented = peer_identity(std::slice::from_ref(&leaf))?;
    if presented != *identity {
        return Err(AnswerError::OtherIdentity {
            expected: identity.clone(),
            presented,
        });
    }
    let time = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    if !(facts.not_before..facts.not_after).contains(&time) {
        return Err(AnswerError::NotValidNow {
            from: seconds(facts.not_before),
            to: seconds(facts.not_after),
            now: now.as_secs(),
        });
    }

    let mut roots = RootCertStore::empty();
    let mut chain = vec![leaf];
    let last = issuers.len() - 1;
    for (index, issuer) in issuers.into_iter().enumerate() {
        let facts = x509::facts(&issuer)?;
        // An authority below a foreign root may send a chain without it: then the last is trusted.
        let is_root = facts.self_issued || (index == last && roots.is_empty());
        if is_root && facts.authority {
            roots.add(issuer).map_err(BuildError::Tls)?;
        } else {
            chain.push(issuer);
        }
    }
    verify_chain(&chain[0], &chain[1..], &roots, now).map_err(AnswerError::Chain)?;
    Ok(WorkloadCertificate::new(
        identity.clone(),
        &request.key,
        chain,
        roots,
    )?)
}

type Certificates = Vec<CertificateDer<'static>>;

/// The leaf, and at least one issuer. An entry may hold several certificates.
fn split(answer: &[String]) -> Result<(CertificateDer<'static>, Certificates), AnswerError> {
    let mut certificates = Vec::new();
    for (index, entry) in answer.iter().enumerate().take(MAX_CERTIFICATES + 1) {
        let before = certificates.len();
        for certificate in CertificateDer::pem_slice_iter(entry.as_bytes()) {
            certificates.push(certificate.map_err(|_| AnswerError::NotPem(index))?);
        }
        if certificates.len() == before {
            return Err(AnswerError::NotPem(index));
        }
    }
    if !(2..=MAX_CERTIFICATES).contains(&certificates.len()) {
        return Err(AnswerError::Length(certificates.len()));
    }
    let issuers = certificates.split_off(1);
    let leaf = certificates.pop().ok_or(AnswerError::Length(0))?;
    Ok((leaf, issuers))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests;
