//! Which tokens are believed. The signatures are real ones.

mod key_sets;

use serde_json::{Value, json};

use super::{
    KeySet, TokenError, Unverified,
    testing::{Signer, key_set, part, rule, verified},
};
use crate::policy::model::{JwtRule, Pattern};

const NOW: u64 = 1_700_000_000;

fn keys(keys: &[&Value]) -> KeySet {
    KeySet::read(key_set(keys).as_bytes()).unwrap()
}

/// What the text says, if it is believed; or why it isn't.
fn judge(text: &str, rule: &JwtRule, keys: &KeySet) -> Result<super::Token, TokenError> {
    let token = Unverified::read(text)?;
    token.check(rule, NOW)?;
    token.verify(rule, keys)
}

#[test]
fn claims_must_be_the_rules() {
    let signer = Signer::new("a");
    let keys = keys(&[signer.jwk()]);
    let (any, ours) = (
        rule(&[], keys.clone()),
        rule(&["ours", "too"], keys.clone()),
    );
    let claims = |more: Value| {
        let mut claims = json!({ "iss": "https://issuer", "sub": "me" });
        let more = more.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        claims
    };
    for (rule, more, expected) in [
        (&any, json!({}), Ok(())),
        (
            &any,
            json!({ "iss": "https://issuer/" }),
            Err(TokenError::UnknownIssuer),
        ),
        (
            &any,
            json!({ "iss": "HTTPS://issuer" }),
            Err(TokenError::UnknownIssuer),
        ),
        (&any, json!({ "iss": null }), Err(TokenError::UnknownIssuer)),
        (
            &any,
            json!({ "iss": ["https://issuer"] }),
            Err(TokenError::UnknownIssuer),
        ),
        (&any, json!({ "exp": NOW + 1 }), Ok(())),
        (&any, json!({ "exp": NOW - 59 }), Ok(())),
        (&any, json!({ "exp": NOW - 60 }), Err(TokenError::Expired)),
        (&any, json!({ "exp": -1 }), Err(TokenError::Expired)),
        (&any, json!({ "exp": "never" }), Err(TokenError::Malformed)),
        (&any, json!({ "exp": null }), Err(TokenError::Malformed)),
        (&any, json!({ "nbf": NOW + 60 }), Ok(())),
        (
            &any,
            json!({ "nbf": NOW + 61 }),
            Err(TokenError::NotYetValid),
        ),
        (&any, json!({ "nbf": "1" }), Err(TokenError::Malformed)),
        (&any, json!({ "aud": "theirs" }), Ok(())),
        (&ours, json!({}), Err(TokenError::Audience)),
        (&ours, json!({ "aud": "theirs" }), Err(TokenError::Audience)),
        (&ours, json!({ "aud": [] }), Err(TokenError::Audience)),
        (&ours, json!({ "aud": "too" }), Ok(())),
        (&ours, json!({ "aud": ["theirs", "ours"] }), Ok(())),
        (
            &ours,
            json!({ "aud": ["ours", 1] }),
            Err(TokenError::Malformed),
        ),
        (
            &ours,
            json!({ "aud": { "ours": 1 } }),
            Err(TokenError::Malformed),
        ),
    ] {
        let told = judge(&signer.token(&claims(more.clone())), rule, &keys);
        assert_eq!(told.map(drop), expected, "{more}");
    }
}

#[test]
fn a_believed_token_says_who_it_is_of() {
    let signer = Signer::new("a");
    let keys = keys(&[signer.jwk()]);
    let claims = json!({
        "iss": "https://issuer", "sub": "me", "aud": ["x", "y"], "azp": "app", "extra": 1,
    });
    let token = judge(&signer.token(&claims), &rule(&[], keys.clone()), &keys).unwrap();
    assert_eq!(token, verified(&claims, &[]));
    assert_eq!(token.principal().as_deref(), Some("https://issuer/me"));
    for subject in [json!(null), json!(""), json!(1)] {
        let claims = json!({ "iss": "https://issuer", "sub": subject });
        let token = judge(&signer.token(&claims), &rule(&[], keys.clone()), &keys).unwrap();
        assert_eq!(token.principal(), None, "{claims}");
    }
}

#[test]
fn only_the_issuers_own_key_signs() {
    let (signer, other) = (Signer::new("a"), Signer::new("b"));
    let impostor = Signer::new("a");
    let claims = json!({ "iss": "https://issuer" });
    let both = keys(&[signer.jwk(), other.jwk()]);
    let nameless = |signer: &Signer| {
        let mut jwk = signer.jwk().clone();
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let unnamed = keys(&[&nameless(&signer), &nameless(&other)]);
    let header = |fields: Value| signer.sign(&fields, &claims);
    let own = signer.token(&claims);
    let (signed, signature) = own.rsplit_once('.').unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    let other_body = part(&json!({ "iss": "https://issuer", "sub": "admin" }));
    let other_signature = other.token(&claims).rsplit_once('.').unwrap().1.to_owned();
    let none = part(&json!({ "alg": "none" }));
    for (name, token, keys, expected) in [
        ("own", own.clone(), &both, Ok(())),
        ("the other", other.token(&claims), &both, Ok(())),
        (
            "without kid",
            header(json!({ "alg": "ES256" })),
            &both,
            Ok(()),
        ),
        ("keys without kid", own.clone(), &unnamed, Ok(())),
        (
            "impostor",
            impostor.token(&claims),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "impostor among nameless keys",
            impostor.token(&claims),
            &unnamed,
            Err(TokenError::Signature),
        ),
        (
            "another's kid",
            header(json!({ "alg": "ES256", "kid": "b" })),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "kid of nobody",
            header(json!({ "alg": "ES256", "kid": "c" })),
            &both,
            Err(TokenError::UnknownKey),
        ),
        (
            "kid of another case",
            header(json!({ "alg": "ES256", "kid": "A" })),
            &both,
            Err(TokenError::UnknownKey),
        ),
        (
            "a path for a kid",
            header(json!({ "alg": "ES256", "kid": "../a" })),
            &both,
            Err(TokenError::UnknownKey),
        ),
        (
            "kid that is no text",
            header(json!({ "alg": "ES256", "kid": ["a"] })),
            &both,
            Err(TokenError::Malformed),
        ),
        (
            "none",
            header(json!({ "alg": "none", "kid": "a" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "nOnE",
            header(json!({ "alg": "nOnE", "kid": "a" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "none, unsigned",
            format!("{none}.{body}."),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "HS256",
            header(json!({ "alg": "HS256", "kid": "a" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "HS512",
            header(json!({ "alg": "HS512" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "es256",
            header(json!({ "alg": "es256", "kid": "a" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "empty",
            header(json!({ "alg": "", "kid": "a" })),
            &both,
            Err(TokenError::Algorithm),
        ),
        (
            "no algorithm",
            header(json!({ "kid": "a" })),
            &both,
            Err(TokenError::Malformed),
        ),
        (
            "of another key type",
            header(json!({ "alg": "RS256", "kid": "a" })),
            &both,
            Err(TokenError::UnknownKey),
        ),
        (
            "of another curve",
            header(json!({ "alg": "ES384", "kid": "a" })),
            &both,
            Err(TokenError::UnknownKey),
        ),
        (
            "crit",
            header(json!({ "alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false })),
            &both,
            Err(TokenError::Critical),
        ),
        (
            "its own key",
            header(json!({ "alg": "ES256", "jwk": impostor.jwk() })),
            &keys(&[other.jwk()]),
            Err(TokenError::Signature),
        ),
        (
            "other claims",
            format!("{head}.{other_body}.{signature}"),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "another's signature",
            format!("{signed}.{other_signature}"),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "no signature",
            format!("{signed}."),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "padding",
            format!("{signed}.{signature}=="),
            &both,
            Err(TokenError::Signature),
        ),
        (
            "two parts",
            signed.to_owned(),
            &both,
            Err(TokenError::Malformed),
        ),
        (
            "four parts",
            format!("{own}.x"),
            &both,
            Err(TokenError::Malformed),
        ),
        (
            "five parts",
            format!("{own}.x.y"),
            &both,
            Err(TokenError::Malformed),
        ),
        (
            "no token",
            "abc".to_owned(),
            &both,
            Err(TokenError::Malformed),
        ),
        ("nothing", String::new(), &both, Err(TokenError::Malformed)),
        ("dots", "..".to_owned(), &both, Err(TokenError::Malformed)),
        (
            "too long",
            format!("{own}{}", "A".repeat(17 << 10)),
            &both,
            Err(TokenError::Malformed),
        ),
    ] {
        let told = judge(&token, &rule(&[], both.clone()), keys).map(drop);
        assert_eq!(told, expected, "{name}: {token}");
    }
}

/// The classic: an HMAC whose secret is the issuer's public key, which everybody knows.
#[test]
fn a_public_key_is_nobodys_secret() {
    use jsonwebtoken::{Algorithm, EncodingKey, crypto};
    let signer = Signer::new("a");
    let head = part(&json!({ "alg": "HS256", "kid": "a" }));
    let signed = format!("{head}.{}", part(&json!({ "iss": "https://issuer" })));
    let public = signer.jwk().to_string();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &secret, Algorithm::HS256).unwrap();
    let text = format!("{signed}.{signature}");
    let secret = json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" });
    let keys = keys(&[signer.jwk(), &secret]);
    let told = judge(&text, &rule(&[], keys.clone()), &keys);
    assert_eq!(told.map(drop), Err(TokenError::Algorithm));
}

#[test]
fn claims_fit_by_their_values() {
    let token = verified(
        &json!({
            "group": "admin", "groups": ["a", "b c"], "nested": { "deep": ["x"] }, "yes": true,
            "n": 3, "scope": "read write", "roles": "r1 r2", "free": "r1 r2", "empty": "",
        }),
        &["roles"],
    );
    for (path, pattern, fits) in [
        (&["group"][..], "admin", true),
        (&["group"], "Admin", false),
        (&["group"], "adm*", true),
        (&["group"], "*", true),
        (&["groups"], "a", true),
        (&["groups"], "b c", true),
        (&["groups"], "b", false),
        (&["nested", "deep"], "x", true),
        (&["nested"], "*", false),
        (&["nested", "other"], "*", false),
        (&["group", "deep"], "*", false),
        (&["yes"], "true", true),
        (&["n"], "3", true),
        (&["scope"], "read", true),
        (&["scope"], "read write", true),
        (&["scope"], "rea", false),
        (&["roles"], "r2", true),
        (&["free"], "r2", false),
        (&["empty"], "*", false),
        (&["missing"], "*", false),
    ] {
        let pattern = match pattern.strip_suffix('*') {
            Some("") => Pattern::Present,
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exact(pattern.to_owned()),
        };
        let names: Vec<_> = path.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            token.claim_fits(&names, &pattern),
            fits,
            "{path:?} {pattern}"
        );
    }
}
