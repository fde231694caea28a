//! What a certificate says. Nothing here decides whether it is to be trusted.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{Identity, spiffe::ParseIdentityError};

/// Why no identity can be read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The peer showed none at all.
    #[error("no certificate was presented")]
    Missing,
    /// Not a certificate.
    #[error("not a readable X.509 certificate: {0}")]
    Unreadable(String),
    /// A SPIFFE certificate has exactly one URI name (X509-SVID, section 2).
    #[error("the certificate has {0} URI names where exactly one SPIFFE id is due")]
    UriCount(usize),
    /// The URI isn't an identity.
    #[error("the certificate's URI name: {0}")]
    NotAnIdentity(#[from] ParseIdentityError),
}

/// The identity of the peer that presented this chain, after a handshake has verified it.
///
/// # Errors
/// If the first certificate is missing, unreadable or has not exactly one SPIFFE URI name.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, CertificateError> {
    let leaf = parse(chain.first().ok_or(CertificateError::Missing)?)?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| CertificateError::Unreadable(error.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| uri_names(&names.value.general_names))
        .collect();
    match uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        other => Err(CertificateError::UriCount(other.len())),
    }
}

/// When the first certificate of a chain expires.
///
/// # Errors
/// If it is missing or unreadable.
pub fn expiry(chain: &[CertificateDer<'_>]) -> Result<SystemTime, CertificateError> {
    let leaf = parse(chain.first().ok_or(CertificateError::Missing)?)?;
    Ok(time(leaf.validity().not_after.timestamp()))
}

/// The facts that the agent needs of a certificate, its own or an issuer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Valid from, to the second.
    pub not_before: SystemTime,
    /// Valid until, to the second.
    pub not_after: SystemTime,
    /// In lower-case hexadecimal.
    pub serial: String,
    /// The DER of SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Issuer and subject are the same, as in a root.
    pub self_issued: bool,
    /// Basic constraints say that it may issue.
    pub authority: bool,
}

/// Reads the facts of one certificate.
///
/// # Errors
/// [`CertificateError::Unreadable`].
pub fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, CertificateError> {
    let certificate = parse(certificate)?;
    let mut serial = String::new();
    for byte in certificate.raw_serial() {
        // Writing to a string can't fail.
        let _ = write!(serial, "{byte:02x}");
    }
    Ok(Facts {
        not_before: time(certificate.validity().not_before.timestamp()),
        not_after: time(certificate.validity().not_after.timestamp()),
        serial,
        public_key: certificate.public_key().raw.to_vec(),
        self_issued: certificate.issuer() == certificate.subject(),
        authority: certificate.is_ca(),
    })
}

/// The URI names among subject alternative names.
pub(super) fn uri_names<'a>(
    names: &'a [GeneralName<'a>],
) -> impl Iterator<Item = &'a str> + use<'a> {
    names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

/// The subject alternative names in an extension, if it is that extension.
pub(super) fn alternative_names<'a>(
    extension: &'a ParsedExtension<'a>,
) -> Option<&'a [GeneralName<'a>]> {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let unreadable = |why: String| CertificateError::Unreadable(why);
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} bytes follow it", rest.len())));
    }
    Ok(certificate)
}

/// Times before 1970 count as 1970: both are long past.
fn time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_chain_has_no_identity() {
        assert_eq!(peer_identity(&[]), Err(CertificateError::Missing));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            let der = CertificateDer::from(bytes);
            prop_assert!(peer_identity(std::slice::from_ref(&der)).is_err());
            prop_assert!(facts(&der).is_err());
        }
    }
}
