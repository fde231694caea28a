//! Who is let through a handshake.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{PeerError, crypto};
use crate::identity::{Identity, x509::peer_identity};

/// The client's side: the server must prove one identity. Its DNS names don't count.
#[derive(Debug)]
pub(super) struct ExpectIdentity {
    roots: Arc<RootCertStore>,
    expected: Identity,
}

impl ExpectIdentity {
    pub(super) fn new(roots: Arc<RootCertStore>, expected: Identity) -> Self {
        Self { roots, expected }
    }
}

impl ServerCertVerifier for ExpectIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(end_entity, intermediates, &self.roots, now)?;
        let presented = identity_of(end_entity)?;
        if presented != self.expected {
            return Err(refused(PeerError::OtherIdentity {
                expected: self.expected.clone(),
                presented,
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = crypto().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = crypto().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The server's side: the client must prove an identity of the trust domain.
#[derive(Debug)]
pub(super) struct ExpectTrustDomain {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: Box<str>,
}

impl ExpectTrustDomain {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: &str,
    ) -> Result<Self, VerifierBuilderError> {
        Ok(Self {
            chain: WebPkiClientVerifier::builder_with_provider(roots, crypto())
                .clear_root_hint_subjects()
                .build()?,
            trust_domain: trust_domain.into(),
        })
    }
}

impl ClientCertVerifier for ExpectTrustDomain {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let presented = identity_of(end_entity)?;
        if presented.trust_domain() != &*self.trust_domain {
            return Err(refused(PeerError::OtherTrustDomain {
                expected: self.trust_domain.to_string(),
                presented,
            }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether a leaf verifies to one of the roots now, whatever its names.
pub(in crate::identity) fn verify_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(end_entity)?,
        roots,
        intermediates,
        now,
        crypto().signature_verification_algorithms.all,
    )
}

fn identity_of(end_entity: &CertificateDer<'_>) -> Result<Identity, Error> {
    peer_identity(std::slice::from_ref(end_entity)).map_err(|error| refused(error.into()))
}

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
