use std::time::SystemTime;

use super::*;
use crate::identity::{
    request::CertificateRequest,
    testing::{TestAuthority, shop},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What the authority answers to this request.
fn answer(mesh: &TestAuthority, request: &NewRequest, now: SystemTime) -> Vec<String> {
    let parsed = CertificateRequest::parse(&request.pem).unwrap();
    let identity = parsed.identity().unwrap().clone();
    mesh.authority
        .sign(&parsed, &identity, Some(HOUR), now)
        .unwrap()
}

#[test]
fn the_chain_that_is_shown_has_no_root_and_the_bundle_has_all() {
    let mesh = TestAuthority::new();
    mesh.authority.rotate_now(SystemTime::now()).unwrap();
    let request = NewRequest::generate(&shop("web")).unwrap();
    let answer = answer(&mesh, &request, SystemTime::now());
    assert_eq!(answer.len(), 3);
    let certificate = check(&answer, &shop("web"), &request, UnixTime::now()).unwrap();
    assert_eq!(certificate.chain().len(), 1);
    assert_eq!(certificate.roots().len(), 2);
    assert_eq!(*certificate.identity(), shop("web"));

    // The same in one entry, as an authority may send it.
    let certificate = check(&[answer.concat()], &shop("web"), &request, UnixTime::now()).unwrap();
    assert_eq!(certificate.roots().len(), 2);
}

/// What istiod answers where its own key is signed by an organisation's root.
#[test]
fn an_intermediate_is_shown_to_peers_and_only_the_root_is_trusted() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority("root").self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(authority("root"), &root_key);
    let intermediate = authority("istiod").signed_by(&key, &root_issuer).unwrap();
    let request = NewRequest::generate(&shop("web")).unwrap();
    let parsed = CertificateRequest::parse(&request.pem).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![crate::identity::request::uri_name(&shop("web")).unwrap()];
    let issuer = Issuer::new(authority("istiod"), &key);
    let leaf = leaf.signed_by(&parsed.public_key, &issuer).unwrap();

    let whole = [leaf.pem(), intermediate.pem(), root.pem()];
    let certificate = check(&whole, &shop("web"), &request, UnixTime::now()).unwrap();
    assert_eq!(certificate.chain().len(), 2);
    assert_eq!(certificate.roots().len(), 1);
    let trusted = &certificate.roots().roots[0];
    let certificate = check(&whole[..2], &shop("web"), &request, UnixTime::now()).unwrap();
    assert_eq!(certificate.chain().len(), 1);
    assert_ne!(certificate.roots().roots[0].subject, trusted.subject);
}

#[test]
fn an_answer_to_something_else_is_refused_by_reason() {
    let mesh = TestAuthority::new();
    let stranger = TestAuthority::new();
    let request = NewRequest::generate(&shop("web")).unwrap();
    let now = SystemTime::now();
    let good = answer(&mesh, &request, now);
    let another = NewRequest::generate(&shop("web")).unwrap();
    let replaced = |place: usize, by: String| {
        let mut changed = good.clone();
        changed[place] = by;
        changed
    };
    let foreign_root = stranger.authority.trust_bundle();
    for (case, answer, identity, expected) in [
        (
            "another key",
            answer(&mesh, &another, now),
            shop("web"),
            "another key",
        ),
        (
            "another identity",
            good.clone(),
            shop("other"),
            "not for spiffe",
        ),
        (
            "expired",
            answer(&mesh, &request, now - 2 * HOUR),
            shop("web"),
            "clock",
        ),
        (
            "not valid yet",
            answer(&mesh, &request, now + 2 * HOUR),
            shop("web"),
            "clock",
        ),
        (
            "foreign root",
            replaced(1, foreign_root),
            shop("web"),
            "doesn't verify",
        ),
        (
            "a leaf as root",
            replaced(1, good[0].clone()),
            shop("web"),
            "doesn't verify",
        ),
        ("no root", good[..1].to_vec(), shop("web"), "1 certificates"),
        ("nothing", Vec::new(), shop("web"), "0 certificates"),
        (
            "too many",
            vec![good[1].clone(); 40],
            shop("web"),
            "33 certificates",
        ),
        (
            "not PEM",
            replaced(1, "garbage".to_owned()),
            shop("web"),
            "entry 1",
        ),
    ] {
        let error = check(&answer, &identity, &request, UnixTime::now())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}
