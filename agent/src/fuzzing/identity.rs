//! Who somebody is: SPIFFE ids, and the certificates and requests that they are in.

use std::sync::LazyLock;

use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::CertificateDer;

use super::Choices;
use crate::identity::{Identity, request::CertificateRequest, x509};

/// Made anew in each process: what is checked doesn't depend on it.
static KEY: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"));

/// `subjectAltName`.
const ALTERNATIVE_NAME: [u64; 4] = [2, 5, 29, 17];

pub(super) fn spiffe(data: &[u8]) {
    check_id(&String::from_utf8_lossy(data));
}

/// An identity is its text, letter for letter, and has three parts that nothing could be hidden in.
pub(crate) fn check_id(text: &str) {
    let parts = text
        .strip_prefix("spiffe://")
        .map(|rest| rest.split('/').collect::<Vec<_>>());
    let is_part = |part: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        !part.is_empty() && *part != "." && *part != ".." && part.chars().all(plain)
    };
    let expected = match parts.as_deref() {
        Some([domain, "ns", namespace, "sa", account]) if text.len() <= 2048 => {
            let all = [*domain, *namespace, *account];
            all.iter().all(is_part).then_some(all)
        }
        _ => None,
    };
    let read = text.parse::<Identity>().ok();
    let found = read
        .as_ref()
        .map(|it| [it.trust_domain(), it.namespace(), it.service_account()]);
    assert_eq!(found, expected, "{text:?}");
    if let Some(identity) = read {
        assert_eq!(identity.to_string(), text);
    }
}

/// Bytes as a peer presents them, or names that a certificate is made with.
pub(super) fn certificate(data: &[u8]) {
    let raw = CertificateDer::from(data);
    let facts = x509::facts(&raw);
    if let Ok(identity) = x509::peer_identity(std::slice::from_ref(&raw)) {
        assert!(facts.is_ok());
        // It is in there as it is read.
        let text = identity.to_string();
        assert!(
            data.windows(text.len()).any(|it| it == text.as_bytes()),
            "{text}"
        );
    }
    let (params, uris) = names(data);
    let Ok(made) = params.self_signed(&*KEY) else {
        return;
    };
    let found = x509::peer_identity(std::slice::from_ref(made.der())).ok();
    if let Some(uris) = uris {
        assert_eq!(found, only(&uris), "{params:?}");
    }
}

/// A request as it comes, or names that one is made with.
pub(super) fn request(data: &[u8]) {
    let _ = CertificateRequest::parse(&String::from_utf8_lossy(data));
    let (params, uris) = names(data);
    let Ok(made) = params.serialize_request(&*KEY).and_then(|made| made.pem()) else {
        return;
    };
    let read = CertificateRequest::parse(&made).ok();
    let count = params.subject_alt_names.len();
    // Exactly one name, a SPIFFE id, or none at all.
    let expected = match uris {
        Some(uris) if count == uris.len() => match &uris[..] {
            [] => Some(None),
            uris => only(uris).map(Some),
        },
        Some(_) => None,
        None => return,
    };
    assert_eq!(
        read.map(|read| read.identity().cloned()),
        expected,
        "{params:?}"
    );
}

fn only(uris: &[String]) -> Option<Identity> {
    match uris {
        [uri] => uri.parse().ok(),
        _ => None,
    }
}

/// Up to three names, and the URIs among them; `None` where bytes stand for the whole extension.
fn names(data: &[u8]) -> (CertificateParams, Option<Vec<String>>) {
    let mut choices = Choices::new(data);
    let mut params = CertificateParams::default();
    if choices.below(8) == 7 {
        let bytes = choices.rest().to_vec();
        let extension = CustomExtension::from_oid_content(&ALTERNATIVE_NAME, bytes);
        params.custom_extensions.push(extension);
        return (params, None);
    }
    let mut uris = Vec::new();
    for _ in 0..choices.below(4) {
        let name = match choices.below(4) {
            0 => "spiffe://cluster.local/ns/shop/sa/web".into(),
            _ => choices.text(60),
        };
        let is_uri = choices.below(4) != 3;
        let Ok(text) = name.as_ref().try_into() else {
            continue;
        };
        if is_uri {
            uris.push(name.into_owned());
        }
        let name = if is_uri {
            SanType::URI(text)
        } else {
            SanType::DnsName(text)
        };
        params.subject_alt_names.push(name);
    }
    (params, Some(uris))
}
