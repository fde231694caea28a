//! Which keys of a set are used, and for what.

use serde_json::{Value, json};

use super::{
    super::{
        KeySet, KeySetError,
        testing::{Signer, key_set},
    },
    judge, rule,
};

#[test]
fn a_key_does_what_its_set_says_and_no_more() {
    let signer = Signer::new("a");
    let claims = json!({ "iss": "https://issuer" });
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk().clone();
        jwk[name] = value;
        key_set(&[&jwk])
    };
    for (set, is_usable) in [
        (with("alg", json!("ES256")), true),
        (with("key_ops", json!(["verify"])), true),
        (with("x5t", json!("abc")), true),
        (with("unknown", json!({ "a": 1 })), true),
        (with("use", json!("enc")), false),
        (with("alg", json!("ES384")), false),
        (with("alg", json!("HS256")), false),
        (with("alg", json!("RS256")), false),
        (with("key_ops", json!(["encrypt"])), false),
        (with("kty", json!("oct")), false),
        (with("kty", json!("unheard-of")), false),
        (with("crv", json!("P-521")), false),
    ] {
        let keys = KeySet::read(set.as_bytes());
        assert_eq!(keys.is_ok(), is_usable, "{set}");
        if let Ok(keys) = keys {
            let told = judge(&signer.token(&claims), &rule(&[], keys.clone()), &keys);
            assert_eq!(told.map(drop), Ok(()), "{set}");
        }
    }
    // One that can't be read doesn't spoil the others.
    let odd = json!({ "kty": "unheard-of" });
    assert!(KeySet::read(key_set(&[&odd, signer.jwk()]).as_bytes()).is_ok());
}

#[test]
fn a_wrong_key_set_is_refused() {
    let signer = Signer::new("a");
    let many = vec![signer.jwk(); 101];
    for (text, expected) in [
        (key_set(&[]), KeySetError::NoKey(0)),
        (
            key_set(&[&json!({ "kty": "oct", "k": "AAAA" })]),
            KeySetError::NoKey(1),
        ),
        (key_set(&many), KeySetError::TooMany(101)),
    ] {
        assert_eq!(KeySet::read(text.as_bytes()), Err(expected));
    }
    for text in ["", "[]", "{}", "{\"keys\": {}}", "<html>"] {
        let told = KeySet::read(text.as_bytes());
        assert!(matches!(told, Err(KeySetError::Syntax(_))), "{text}");
    }
}
