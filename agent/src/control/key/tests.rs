use super::*;

#[test]
fn a_secret_holds_what_cert_manager_would_have_put_into_it() {
    let now = SystemTime::now();
    let settings = authority::Settings::default();
    let made = secret(&Material::generate(&settings, now).unwrap());
    assert_eq!(made.type_.as_deref(), Some("kubernetes.io/tls"));
    let read = material(&made).unwrap();
    assert_eq!(read.certificate, read.roots);
    let authority = CertificateAuthority::with_given(&read, settings.clone()).unwrap();
    assert_eq!(authority.trust_bundle(), read.roots);

    // Without ca.crt the certificate is the root.
    let without = |field: &str| {
        let mut secret = made.clone();
        secret.data.as_mut().unwrap().remove(field);
        material(&secret)
    };
    let rootless = without("ca.crt").unwrap();
    let rootless = CertificateAuthority::with_given(&rootless, settings).unwrap();
    assert_eq!(rootless.trust_bundle(), read.roots);
    for field in ["tls.crt", "tls.key"] {
        let error = without(field).err().unwrap().to_string();
        assert!(
            error.contains(&format!("data.{field} is missing")),
            "{error}"
        );
    }
    let mut binary = made;
    let data = binary.data.as_mut().unwrap();
    data.insert("tls.key".into(), ByteString(vec![0xff]));
    let error = material(&binary).err().unwrap().to_string();
    assert!(error.contains("data.tls.key isn't text"), "{error}");
}
