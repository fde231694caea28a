//! Roots and what they sign: the certificates themselves.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::super::{
    Identity,
    request::{PrivateKey, uri_name},
};

/// How far in the past certificates begin to be valid: a peer whose clock is an hour behind (daylight saving
/// time taken for the time, a virtual machine that was resumed) still believes them, some minutes spare.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(65 * 60);

/// A new root: its certificate and its key, both PEM.
pub(super) struct NewRoot {
    pub(super) certificate: String,
    pub(super) key: zeroize::Zeroizing<String>,
}

/// Makes a self-signed ECDSA P-256 root.
pub(super) fn create(
    id: &str,
    trust_domain: &str,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<NewRoot, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(not_before, not_after)?;
    // The subject is unique to the root, so that a verifier tries one issuer, not all.
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Ambit root {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    Ok(NewRoot {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem().into(),
    })
}

/// A root that can sign.
pub(super) struct Signer(Issuer<'static, KeyPair>);

impl Signer {
    /// From what [`create`] made.
    pub(super) fn load(
        certificate: &CertificateDer<'_>,
        key_pem: &str,
    ) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self(Issuer::from_ca_cert_der(certificate, key)?))
    }

    /// DER of the key's SubjectPublicKeyInfo.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.key().subject_public_key_info()
    }

    /// A workload's certificate: one critical SPIFFE URI, no subject, client and server.
    pub(super) fn sign_workload(
        &self,
        public_key: &impl PublicKeyData,
        identity: &Identity,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Certificate, rcgen::Error> {
        let mut params = leaf(not_before, not_after, vec![uri_name(identity)?])?;
        params
            .extended_key_usages
            .insert(0, ExtendedKeyUsagePurpose::ClientAuth);
        params.signed_by(public_key, &self.0)
    }

    /// A certificate for the authority's own server, with DNS names and addresses.
    pub(super) fn sign_server(
        &self,
        names: &[String],
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<(Certificate, PrivateKey), rcgen::Error> {
        let names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
            })
            .collect::<Result<_, rcgen::Error>>()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf(not_before, not_after, names)?.signed_by(&key, &self.0)?;
        Ok((certificate, PrivateKey::from_key_pair(key)))
    }
}

fn leaf(
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<SanType>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(not_before, not_after)?;
    // No subject: rcgen then marks the names critical, as RFC 5280 section 4.2.1.6 demands.
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial()?);
    let date = |time: SystemTime| {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch.as_secs())
    };
    params.not_before = date(not_before);
    params.not_after = date(not_after);
    Ok(params)
}

/// 128 random bits: positive and without leading zero octet (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}
