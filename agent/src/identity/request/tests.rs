use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

use super::*;

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web")
}

/// A request with these names.
fn with(names: Vec<SanType>) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn to_pem(der: &[u8]) -> String {
    pem_of(CertificateSigningRequestDer::from(der.to_vec()))
}

fn pem_of(der: CertificateSigningRequestDer<'_>) -> String {
    use std::fmt::Write as _;
    let mut text = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned();
    let encoded = base64(&der);
    for line in encoded.as_bytes().chunks(64) {
        writeln!(text, "{}", std::str::from_utf8(line).unwrap()).unwrap();
    }
    text + "-----END CERTIFICATE REQUEST-----\n"
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value = chunk
            .iter()
            .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

#[test]
fn what_we_generate_we_accept() {
    let new = NewRequest::generate(&web()).unwrap();
    let parsed = CertificateRequest::parse(&new.pem).unwrap();
    assert_eq!(parsed.identity(), Some(&web()));
    assert_eq!(parsed.public_key.subject_public_key_info(), new.public_key);
    assert!(!format!("{new:?}").contains("PRIVATE"));
}

#[test]
fn a_request_without_names_leaves_the_identity_to_the_metadata() {
    assert_eq!(
        CertificateRequest::parse(&with(vec![])).unwrap().identity(),
        None
    );
}

#[test]
fn a_bad_request_is_refused_with_its_reason() {
    let id = web().to_string();
    let other_key = {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        request.pem().unwrap()
    };
    for (case, pem, expected) in [
        ("two URIs", with(vec![uri(&id), uri(&id)]), "at most one"),
        (
            "a DNS name too",
            with(vec![uri(&id), dns("web")]),
            "at most one",
        ),
        ("a DNS name alone", with(vec![dns("web")]), "at most one"),
        (
            "another URI",
            with(vec![uri("https://x/")]),
            "not a SPIFFE id",
        ),
        ("another key type", other_key, "not ECDSA P-256"),
        ("empty", String::new(), "not readable"),
        ("not PKCS #10", to_pem(b"garbage"), "not readable"),
    ] {
        let error = CertificateRequest::parse(&pem).unwrap_err().to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}

#[test]
fn a_request_that_was_changed_after_signing_is_refused() {
    let pem = NewRequest::generate(&web()).unwrap().pem;
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    let place = der.windows(3).position(|window| window == b"web").unwrap();
    let mut changed = der.to_vec();
    changed[place..place + 3].copy_from_slice(b"bew");
    assert_eq!(
        CertificateRequest::parse(&to_pem(&changed)),
        Err(RequestError::Signature)
    );
    assert!(
        CertificateRequest::parse(&to_pem(&der)).is_ok(),
        "the encoder of this test is right"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        prop_assert!(CertificateRequest::parse_der(&bytes).is_err());
        prop_assert!(CertificateRequest::parse(&String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn a_flipped_byte_never_makes_another_identity(place: prop::sample::Index, flip in 1u8..) {
        let pem = NewRequest::generate(&web()).unwrap().pem;
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let place = place.index(der.len());
        der[place] ^= flip;
        if let Ok(request) = CertificateRequest::parse_der(&der) {
            prop_assert_eq!(request.identity(), Some(&web()));
        }
    }
}
