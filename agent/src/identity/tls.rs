//! TLS between agents: mutual, 1.3 only, each side proving a workload's identity.
//!
//! The client demands one identity; the server takes any of its trust domain and leaves the rest
//! to policy. DNS names mean nothing here.

mod accept;
mod error;
mod verifier;

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self as provider, cipher_suite, kx_group},
    },
    pki_types::ServerName,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};

pub(super) use self::verifier::verify_chain;
use self::verifier::{ExpectIdentity, ExpectTrustDomain};
pub use self::{
    accept::{AcceptError, Accepted, ServerCertificates},
    error::PeerError,
};
use super::{Identity, WorkloadCertificate, workload_certificate::BuildError};

pub use super::x509::peer_identity;

/// HBONE, which every implementation speaks.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// One application connection at a time, between agents of our own.
pub const ALPN_DIRECT: &[u8] = b"ambit/2";
/// What follows the digest in our server names.
const SNI_SUFFIX: &str = ".identity.ambit.mesh";

/// The cryptography of every connection of Ambit's own.
///
/// AES-128 first: every CPU that runs nodes has it in hardware, and it costs less a byte than
/// AES-256. The hybrid key exchange first, so that what is recorded today stays secret later.
#[must_use]
pub fn crypto() -> Arc<CryptoProvider> {
    static CRYPTO: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
            ],
            ..provider::default_provider()
        })
    });
    Arc::clone(&CRYPTO)
}

/// What a side is ready to speak in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// Direct, or else HTTP/2.
    Any,
    /// HTTP/2 only.
    Http2,
}

impl Protocols {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Any => vec![ALPN_DIRECT.to_vec(), ALPN_HTTP2.to_vec()],
            Self::Http2 => vec![ALPN_HTTP2.to_vec()],
        }
    }
}

/// Shows `certificate`, and connects to nobody but `expected`. Cheap: the rest is shared.
#[must_use]
pub fn client_config(
    certificate: &WorkloadCertificate,
    expected: Identity,
    protocols: Protocols,
) -> Arc<ClientConfig> {
    let mut config = certificate.client_template().clone();
    config.alpn_protocols = protocols.alpn();
    let verifier = ExpectIdentity::new(Arc::clone(certificate.roots()), expected);
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    Arc::new(config)
}

/// Shows `certificate`, and demands one of the same trust domain. Cheap.
#[must_use]
pub fn server_config(certificate: &WorkloadCertificate, protocols: Protocols) -> Arc<ServerConfig> {
    match protocols {
        Protocols::Any => Arc::clone(certificate.server()),
        Protocols::Http2 => {
            let mut config = ServerConfig::clone(certificate.server());
            config.alpn_protocols = protocols.alpn();
            Arc::new(config)
        }
    }
}

/// The server name by which an agent asks another for the certificate of this identity.
///
/// A digest: SPIFFE ids have characters that no DNS name has, and the name travels in clear.
#[must_use]
pub fn identity_sni(identity: &Identity) -> ServerName<'static> {
    ServerName::try_from(sni(identity)).expect("hexadecimal digits and a fixed suffix")
}

/// [`identity_sni`] as text: 32 hexadecimal digits (the first half of SHA-256 of the SPIFFE id)
/// and a fixed suffix.
pub(super) fn sni(identity: &Identity) -> String {
    use std::fmt::Write as _;
    let digest = digest::digest(&digest::SHA256, identity.to_string().as_bytes());
    let mut name = String::with_capacity(32 + SNI_SUFFIX.len());
    for byte in &digest.as_ref()[..16] {
        // Writing to a string can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + SNI_SUFFIX
}

/// A client configuration that expects the workload's own identity; [`client_config`] puts the
/// expected one in.
pub(super) fn client_template(
    certified: Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    own: &Identity,
) -> Result<ClientConfig, BuildError> {
    let verifier = ExpectIdentity::new(Arc::clone(roots), own.clone());
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // The records after the handshake are ours to seal.
    config.enable_secret_extraction = true;
    // A resumed session doesn't check certificates again: one that has expired, or a root that
    // is trusted no more, would live on in tickets. The tunnel pool saves the handshakes instead.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// A server configuration that demands a client certificate of the trust domain.
pub(super) fn server_template(
    certified: Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<ServerConfig, BuildError> {
    let verifier = ExpectTrustDomain::new(Arc::clone(roots), trust_domain)?;
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = Protocols::Any.alpn();
    config.enable_secret_extraction = true;
    // For the reason given at the client: no tickets, no sessions, no early data.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod tests;
