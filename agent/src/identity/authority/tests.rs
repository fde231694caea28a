use std::{fs, os::unix::fs::PermissionsExt, time::UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::identity::{request::NewRequest, x509};

fn settings() -> Settings {
    Settings {
        certificate_ttl: Duration::from_secs(100),
        root_overlap: Duration::from_secs(100),
        rotate_before: Duration::from_secs(300),
        root_ttl: Duration::from_secs(1000),
        ..Settings::default()
    }
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn open(directory: &TempDir) -> Result<CertificateAuthority, Error> {
    CertificateAuthority::open(&directory.path().join("ca"), settings(), start())
}

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web")
}

fn request(identity: &Identity) -> CertificateRequest {
    CertificateRequest::parse(&NewRequest::generate(identity).unwrap().pem).unwrap()
}

fn bundle_file(directory: &TempDir) -> String {
    fs::read_to_string(directory.path().join("ca/trust-bundle.pem")).unwrap()
}

fn key_files(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.path().join("ca")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "key"))
        .collect()
}

#[test]
fn a_leaf_has_exactly_what_a_workload_needs() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    for (asked, life) in [(None, 100), (Some(30), 30), (Some(5000), 100)] {
        let asked = asked.map(Duration::from_secs);
        let chain = authority
            .sign(&request(&web()), &web(), asked, start())
            .unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], bundle_file(&directory));
        let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        let facts = x509::facts(&der).unwrap();
        assert_eq!(facts.not_before, start() - CLOCK_SKEW);
        assert_eq!(facts.not_after, start() + Duration::from_secs(life));
        assert_eq!(facts.serial.len(), 32);
        assert_eq!(
            x509::peer_identity(std::slice::from_ref(&der)).unwrap(),
            web()
        );

        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(leaf.subject().iter().count(), 0);
        assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
        assert!(!leaf.is_ca());
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.flags, 1, "only digitalSignature");
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && extended.server_auth && !extended.any);
    }
}

#[test]
fn nothing_of_a_request_but_its_key_reaches_the_certificate() {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![crate::identity::request::uri_name(&web()).unwrap()];
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    // Basic constraints with cA true, and an extension that nobody knows.
    let authority_constraint = vec![0x30, 3, 1, 1, 0xff];
    for (oid, content) in [
        (&[2, 5, 29, 19][..], authority_constraint),
        (&[1, 2, 3, 4][..], vec![5, 0]),
    ] {
        let extension = rcgen::CustomExtension::from_oid_content(oid, content);
        params.custom_extensions.push(extension);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = CertificateRequest::parse(&pem).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    let chain = authority.sign(&request, &web(), None, start()).unwrap();
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.key_usage().unwrap().unwrap().value.flags, 1);
    assert!(
        leaf.extensions()
            .iter()
            .all(|extension| extension.oid.to_id_string() != "1.2.3.4")
    );
}

#[test]
fn no_certificate_outlives_its_root() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    // Rotation has failed to happen until shortly before the end.
    let late = start() + Duration::from_secs(950);
    let chain = authority
        .sign(&request(&web()), &web(), None, late)
        .unwrap();
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    assert_eq!(
        x509::facts(&der).unwrap().not_after,
        start() + Duration::from_secs(1000)
    );
    let end = start() + Duration::from_secs(1000);
    let error = authority
        .sign(&request(&web()), &web(), None, end)
        .unwrap_err();
    assert!(matches!(error, Error::RootExpired(_)), "{error}");
}

#[test]
fn only_the_authorised_identity_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    let other = Identity::new("cluster.local", "shop", "other");
    let error = authority
        .sign(&request(&other), &web(), None, start())
        .unwrap_err();
    assert!(matches!(error, Error::OtherIdentity { .. }), "{error}");
    let foreign = Identity::new("elsewhere", "shop", "web");
    let error = authority
        .sign(&request(&foreign), &foreign, None, start())
        .unwrap_err();
    assert!(matches!(error, Error::TrustDomain { .. }), "{error}");
}

#[test]
fn a_restart_keeps_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory).unwrap().trust_bundle();
    let authority = open(&directory).unwrap();
    assert_eq!(authority.trust_bundle(), before);
    assert_eq!(bundle_file(&directory), before);
    let chain = authority
        .sign(&request(&web()), &web(), None, start())
        .unwrap();
    assert_eq!(chain[1], before);
}

#[test]
fn secrets_are_written_for_the_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let _authority = open(&directory).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("ca")), 0o700);
    assert_eq!(mode(&directory.path().join("ca/roots.json")), 0o600);
    assert_eq!(
        key_files(&directory)
            .iter()
            .map(|path| mode(path))
            .collect::<Vec<_>>(),
        [0o600]
    );
}

#[test]
fn an_unusable_directory_is_refused_by_name() {
    type Damage = fn(&Path, &Path);
    let cases: [(&str, Damage, &str); 5] = [
        (
            "key readable by others",
            |_, key| fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap(),
            "chmod 600",
        ),
        (
            "directory open to others",
            |directory, _| {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
            },
            "chmod 700",
        ),
        (
            "key garbage",
            |_, key| fs::write(key, "garbage").unwrap(),
            ".key is damaged",
        ),
        (
            "another key",
            |_, key| {
                let pair = rcgen::KeyPair::generate().unwrap();
                fs::write(key, pair.serialize_pem()).unwrap();
            },
            "isn't the key",
        ),
        (
            "records garbage",
            |directory, _| fs::write(directory.join("roots.json"), "[{]").unwrap(),
            "roots.json is damaged",
        ),
    ];
    for (case, damage, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        drop(open(&directory).unwrap());
        damage(&directory.path().join("ca"), &key_files(&directory)[0]);
        let error = open(&directory).err().unwrap().to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}

#[test]
fn two_authorities_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(&directory).unwrap();
    assert!(matches!(open(&directory), Err(Error::InUse { .. })));
}

#[test]
fn contradictory_settings_are_refused() {
    type Change = fn(&mut Settings);
    let changes: [(&str, Change); 3] = [
        ("too short", |settings| {
            settings.certificate_ttl = Duration::from_millis(900)
        }),
        ("shorter than a certificate", |settings| {
            settings.root_overlap /= 2
        }),
        ("no time between rotations", |settings| {
            settings.root_ttl = Duration::from_secs(400)
        }),
    ];
    for (expected, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings();
        change(&mut settings);
        let error = CertificateAuthority::open(directory.path(), settings, start())
            .err()
            .unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn rotation_on_request_stages_then_signs_then_drops() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    let first = authority.trust_bundle();
    let at = |seconds| start() + Duration::from_secs(seconds);

    authority.rotate_now(at(10)).unwrap();
    authority.rotate_now(at(20)).unwrap();
    let staged = authority.trust_bundle();
    assert!(staged.starts_with(&first) && staged.len() > first.len());
    assert_eq!(authority.roots().len(), 2, "asked twice, begun once");
    assert_eq!(bundle_file(&directory), staged);
    assert_eq!(authority.advance(at(20)).unwrap(), Some(at(110)));

    // A restart in between changes nothing.
    drop(authority);
    let authority =
        CertificateAuthority::open(&directory.path().join("ca"), settings(), at(109)).unwrap();
    assert_eq!(authority.trust_bundle(), staged);
    assert_eq!(authority.advance(at(110)).unwrap(), Some(at(210)));
    let second = staged.strip_prefix(&first).unwrap();
    assert_eq!(authority.trust_bundle(), format!("{second}{first}"));
    let chain = authority
        .sign(&request(&web()), &web(), None, at(110))
        .unwrap();
    assert_eq!(chain[1..].concat(), bundle_file(&directory));
    assert_eq!(
        key_files(&directory).len(),
        1,
        "a retired root needs no key"
    );

    authority.advance(at(210)).unwrap();
    assert_eq!(authority.trust_bundle(), second);
    assert_eq!(bundle_file(&directory), second);
}

#[test]
fn a_rotation_that_cannot_be_written_leaves_the_roots_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory).unwrap();
    let before = authority.trust_bundle();
    // In the way of the new file, and not to be removed as a file.
    let obstacle = directory.path().join("ca/roots.json.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(authority.rotate_now(start()).is_err());
    assert_eq!(authority.trust_bundle(), before);
    assert_eq!(authority.roots().len(), 1);
    fs::remove_dir(&obstacle).unwrap();
    authority.rotate_now(start()).unwrap();
    assert_eq!(authority.roots().len(), 2);
}
