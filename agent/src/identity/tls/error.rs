//! Why a handshake failed, in the operator's words.

use std::{error::Error as _, io};

use rustls::{AlertDescription, CertificateError, Error};

use crate::{
    channel::HandshakeError,
    identity::{Identity, x509},
};

/// What was wrong with the peer's certificate, or what the peer says is wrong with ours.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// The chain leads to none of our roots.
    #[error(
        "the peer's certificate is signed by no root that this mesh trusts: it belongs to another \
         mesh, or one side missed a root rotation"
    )]
    Untrusted,
    /// Too late.
    #[error("the peer's certificate has expired: its agent can't renew it, or a clock is wrong")]
    Expired,
    /// Too early.
    #[error("the peer's certificate isn't valid yet: a clock is wrong")]
    NotYetValid,
    /// A valid certificate of somebody else.
    #[error("the peer is {presented}, where {expected} was expected: its address was reused?")]
    OtherIdentity {
        /// Whom we meant to reach.
        expected: Identity,
        /// Who answered.
        presented: Identity,
    },
    /// A valid certificate of another trust domain.
    #[error("the peer is {presented}, which is not of trust domain {expected}")]
    OtherTrustDomain {
        /// Ours.
        expected: String,
        /// Who called.
        presented: Identity,
    },
    /// The client showed none.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// There is no identity in it.
    #[error(transparent)]
    NoIdentity(#[from] x509::CertificateError),
    /// The peer speaks another TLS than we accept.
    #[error("the peer doesn't speak what this mesh does (TLS 1.3, ALPN h2 or ambit/2): {0}")]
    Incompatible(String),
    /// The peer ended the handshake; it knows why better than we.
    #[error("the peer refused the handshake with alert {0:?}: its log says why")]
    RefusedByPeer(AlertDescription),
    /// What the peer sends isn't TLS.
    #[error("the peer doesn't speak TLS: {0}")]
    NotTls(String),
    /// Anything else that TLS found.
    #[error("TLS failed: {0}")]
    Other(Error),
}

impl PeerError {
    /// What a handshake of ours found out.
    ///
    /// # Errors
    /// The connection's own error, if it wasn't TLS that failed.
    pub fn from_handshake(error: HandshakeError) -> Result<Self, io::Error> {
        match error {
            HandshakeError::Tls(error) => Ok(Self::from_tls(&error)),
            HandshakeError::Record(_) | HandshakeError::TooLong => {
                Ok(Self::NotTls(error.to_string()))
            }
            // rustls reads a client's first message through an I/O interface.
            HandshakeError::Io(error) => Self::from_io(&error).ok_or(error),
        }
    }

    /// What TLS says in an I/O error, as `tokio_rustls` returns it; `None` if the error isn't
    /// from TLS but from the connection beneath.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<Self> {
        let mut source = error.get_ref()?.downcast_ref::<Error>();
        if source.is_none() {
            source = error.source().and_then(|inner| inner.downcast_ref());
        }
        source.map(Self::from_tls)
    }

    /// The same for an error of rustls.
    #[must_use]
    pub fn from_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
                CertificateError::Other(other) => match other.0.downcast_ref::<Self>() {
                    Some(ours) => ours.clone(),
                    None => Self::Other(error.clone()),
                },
                _ => Self::Other(error.clone()),
            },
            Error::PeerIncompatible(reason) => Self::Incompatible(format!("{reason:?}")),
            Error::NoApplicationProtocol => Self::Incompatible("no common ALPN".to_owned()),
            Error::AlertReceived(alert) => Self::RefusedByPeer(*alert),
            other => Self::Other(other.clone()),
        }
    }
}
