//! `istio.v1.auth.IstioCertificateService`, as its protobuf definition has it.

use std::collections::BTreeMap;

use prost_types::{Struct, Value, value::Kind};

/// The one method's path.
pub(super) const CREATE_CERTIFICATE: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Names the identity that a node's agent asks a certificate for, which isn't its own.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// The largest message either side reads.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateSigningRequest {
    /// PKCS #10, PEM.
    #[prost(string, tag = "1")]
    pub(super) csr: String,
    /// In seconds; 0 leaves it to the authority.
    #[prost(int64, tag = "3")]
    pub(super) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(super) metadata: Option<Struct>,
}

impl CertificateSigningRequest {
    /// A request on behalf of an identity.
    pub(super) fn new(csr: String, validity_seconds: i64, identity: String) -> Self {
        let value = Value {
            kind: Some(Kind::StringValue(identity)),
        };
        Self {
            csr,
            validity_duration: validity_seconds,
            metadata: Some(Struct {
                fields: BTreeMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]),
            }),
        }
    }

    /// The identity asked for; `None` if the metadata has none or it isn't text.
    pub(super) fn impersonated_identity(&self) -> Option<&str> {
        let value = self.metadata.as_ref()?.fields.get(IMPERSONATED_IDENTITY)?;
        match &value.kind {
            Some(Kind::StringValue(identity)) => Some(identity),
            _ => None,
        }
    }
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateSigningResponse {
    /// PEM, leaf first, a root last.
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_protobuf_definition() {
        let request = CertificateSigningRequest::new("csr".into(), 5, "id".into());
        let expected = [
            &b"\x0a\x03csr"[..],
            b"\x18\x05",
            b"\x22\x1e",
            b"\x0a\x1c",
            b"\x0a\x14ImpersonatedIdentity",
            b"\x12\x04\x1a\x02id",
        ]
        .concat();
        assert_eq!(request.encode_to_vec(), expected);
        let decoded = CertificateSigningRequest::decode(expected.as_slice()).unwrap();
        assert_eq!(decoded.impersonated_identity(), Some("id"));
    }
}
