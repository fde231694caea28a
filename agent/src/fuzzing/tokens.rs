//! JSON Web Tokens, and the keys of their issuers.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Choices;
use crate::policy::{
    jwt::{
        KeySet, Unverified,
        testing::{ISSUER, Signer, key_set, rule},
    },
    model::JwtRule,
};

const NOW: u64 = 1_700_000_000;
const AUDIENCE: &str = "ours";
/// One of each kind that is accepted, and one that isn't.
const ALGORITHMS: [&str; 6] = ["ES256", "ES384", "RS256", "PS512", "EdDSA", "HS256"];

/// Made anew in each process: what is checked doesn't depend on it.
static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("k"));
static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::read(key_set(&[SIGNER.jwk()]).as_bytes()).expect("a key set"));
static RULE: LazyLock<JwtRule> = LazyLock::new(|| rule(&[AUDIENCE], KEYS.clone()));

/// A token as it comes, or its header and its claims (a line each) with a signature that is good.
pub(super) fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(!is_believed(&text), "nobody has signed {text:?}");
    let Some((header, claims)) = text.split_once('\n') else {
        return;
    };
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let signed = format!("{}.{}", part(header), part(claims));
    let token = SIGNER.signed(&signed);
    if is_believed(&token) {
        assert!(is_good(header, claims), "{text:?} must not be believed");
    } else {
        assert!(!is_plain(header, claims), "{text:?} must be believed");
    }
    // What is signed is all of it, and nothing else.
    for forged in [
        signed.clone(),
        format!("{signed}."),
        format!("{}.{}", signed, part("x")),
        token.replacen('.', ".eyJ9", 1),
        format!("{token}A"),
    ] {
        assert!(!is_believed(&forged), "{forged:?}");
    }
}

fn is_believed(text: &str) -> bool {
    let Ok(token) = Unverified::read(text) else {
        return false;
    };
    let Ok(()) = token.check(&RULE, NOW) else {
        return false;
    };
    let Ok(verified) = token.verify(&RULE, &KEYS) else {
        return false;
    };
    assert_eq!(verified.issuer, ISSUER);
    let subject = verified.subject.as_deref();
    assert_eq!(
        verified.principal(),
        subject.map(|it| format!("{ISSUER}/{it}"))
    );
    true
}

/// What must be true of a token that is believed.
fn is_good(header: &str, claims: &str) -> bool {
    let (Ok(header), Ok(claims)) = (json(header), json(claims)) else {
        return false;
    };
    let time = |claim: &str| claims[claim].as_f64();
    let is_audience = match &claims["aud"] {
        Value::Array(all) => all.iter().any(|it| it == AUDIENCE),
        one => one == AUDIENCE,
    };
    header["alg"] == "ES256"
        && (header["kid"].is_null() || header["kid"] == "k")
        && header["crit"].is_null()
        && claims["iss"] == ISSUER
        && is_audience
        && claims
            .get("exp")
            .is_none_or(|_| time("exp").is_some_and(|it| it + 60.0 > NOW as f64))
        && claims
            .get("nbf")
            .is_none_or(|_| time("nbf").is_some_and(|it| it - 60.0 <= NOW as f64))
}

/// A token of which nobody could doubt that it is good.
fn is_plain(header: &str, claims: &str) -> bool {
    header == r#"{"alg":"ES256","kid":"k"}"#
        && json(claims).is_ok_and(|claims| claims.as_object().is_some_and(|it| it.len() == 2))
        && claims.len() < 4096
        && is_good(header, claims)
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// A key set: none of its keys verifies what it hasn't signed, and symmetric ones are none.
pub(super) fn jwks(data: &[u8]) {
    let Ok(keys) = KeySet::read(data) else {
        return;
    };
    let all: Value = serde_json::from_slice(data).expect("it is JSON");
    let all = all["keys"].as_array().expect("it has keys");
    assert!(all.len() <= 100 && all.iter().any(|key| key["kty"] != "oct"));
    let ids = all.iter().filter_map(|key| key["kid"].as_str()).take(3);
    let mut choices = Choices::new(data);
    for id in ids.chain([""]) {
        for algorithm in ALGORITHMS {
            let header = serde_json::json!({ "alg": algorithm, "kid": id }).to_string();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let signature = part(&[choices.byte(); 64]);
            let claims = format!(r#"{{"iss":"{ISSUER}"}}"#);
            let token = format!(
                "{}.{}.{signature}",
                part(header.as_bytes()),
                part(claims.as_bytes())
            );
            let read = Unverified::read(&token).expect("a token");
            assert!(read.verify(&RULE, &keys).is_err(), "{token}");
        }
    }
}
