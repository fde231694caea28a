//! Certificate requests (PKCS #10): made on a node, read by the authority.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::SigningKey,
};
use std::sync::Arc;
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::GeneralName, prelude::FromDer,
};
use zeroize::{Zeroize, Zeroizing};

use super::{Identity, spiffe::ParseIdentityError, x509};

/// Why a request can't be made or is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Neither PEM nor PKCS #10.
    #[error("the certificate request is not readable PEM of type CERTIFICATE REQUEST: {0}")]
    Unreadable(String),
    /// The requester doesn't hold the private key.
    #[error("the certificate request's own signature doesn't verify")]
    Signature,
    /// A key of another kind.
    #[error("the certificate request's key is not ECDSA P-256")]
    KeyType,
    /// Names other than one URI.
    #[error("the certificate request asks for {0:?}, where at most one SPIFFE id may stand")]
    Names(String),
    /// The URI isn't an identity.
    #[error("the certificate request's URI name: {0}")]
    NotAnIdentity(#[from] ParseIdentityError),
    /// Key generation or encoding failed.
    #[error("cannot make a certificate request: {0}")]
    Generate(String),
}

/// A private key in PKCS #8, wiped when dropped and never printed.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    pub(super) fn from_key_pair(mut pair: KeyPair) -> Self {
        let key = Self(Zeroizing::new(pair.serialize_der()));
        pair.zeroize();
        key
    }

    /// The key as rustls signs with it.
    ///
    /// # Errors
    /// If the bytes are no ECDSA key.
    pub(super) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        any_ecdsa_type(&PrivatePkcs8KeyDer::from(self.0.as_slice()).into())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A fresh key and the request for a certificate of it.
#[derive(Debug)]
pub struct NewRequest {
    /// Never leaves the process.
    pub key: PrivateKey,
    /// DER of SubjectPublicKeyInfo, to recognise the answer by.
    pub public_key: Vec<u8>,
    /// The request, PEM.
    pub pem: String,
}

impl NewRequest {
    /// Makes an ECDSA P-256 key and a request with the identity as only name.
    ///
    /// # Errors
    /// [`RequestError::Generate`].
    pub fn generate(identity: &Identity) -> Result<Self, RequestError> {
        let failed = |error: rcgen::Error| RequestError::Generate(error.to_string());
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri_name(identity).map_err(failed)?];
        let request = params.serialize_request(&pair).map_err(failed)?;
        Ok(Self {
            public_key: pair.subject_public_key_info(),
            pem: request.pem().map_err(failed)?,
            key: PrivateKey::from_key_pair(pair),
        })
    }
}

/// A request that proved possession of its key.
///
/// Only key and identity are kept: nothing else of a request ever reaches a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    pub(super) public_key: rcgen::SubjectPublicKeyInfo,
    identity: Option<Identity>,
}

impl CertificateRequest {
    /// Reads a PEM request and verifies its signature.
    ///
    /// # Errors
    /// [`RequestError`], saying what is wrong with it.
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| RequestError::Unreadable(error.to_string()))?;
        Self::parse_der(&der)
    }

    /// The identity that the request names, if it names one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    fn parse_der(der: &[u8]) -> Result<Self, RequestError> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| RequestError::Unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Unreadable("bytes follow it".to_owned()));
        }
        let key = &request.certification_request_info.subject_pki;
        let public_key =
            rcgen::SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::KeyType)?;
        if public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(RequestError::KeyType);
        }
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        let names: Vec<&GeneralName<'_>> = request
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(x509::alternative_names)
            .flatten()
            .collect();
        let identity = match names.as_slice() {
            [] => None,
            [GeneralName::URI(uri)] => Some(uri.parse()?),
            other => {
                let list: Vec<String> = other.iter().map(ToString::to_string).collect();
                return Err(RequestError::Names(list.join(", ")));
            }
        };
        Ok(Self {
            public_key,
            identity,
        })
    }
}

pub(super) fn uri_name(identity: &Identity) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(identity.to_string().try_into()?))
}

#[cfg(test)]
mod tests;
