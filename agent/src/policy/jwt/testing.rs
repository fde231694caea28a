//! Keys and tokens for tests.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use super::KeySet;
use crate::policy::model::{JwtRule, KeySource, TokenPlace};

/// A key of an issuer, P-256.
pub(crate) struct Signer {
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    /// A new key, published under that name.
    pub(crate) fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        // An uncompressed point: 4, x, y.
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Self {
            jwk: json!({
                "kty": "EC", "crv": "P-256", "kid": id, "use": "sig",
                "x": coordinate(x), "y": coordinate(y),
            }),
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
        }
    }

    /// The public key.
    pub(crate) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A token with these claims.
    #[cfg(test)]
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.jwk["kid"] });
        self.sign(&header, claims)
    }

    /// A token with this header, signed with ES256 whatever that says.
    #[cfg(test)]
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.signed(&format!("{}.{}", part(header), part(claims)))
    }

    /// A token of which that is signed with ES256.
    pub(crate) fn signed(&self, text: &str) -> String {
        let signature = crypto::sign(text.as_bytes(), &self.key, Algorithm::ES256);
        format!("{text}.{}", signature.expect("a signature"))
    }
}

/// A header or claims, as a token has them.
#[cfg(test)]
pub(crate) fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// Who says what tokens say.
pub(crate) const ISSUER: &str = "https://issuer";

/// Bearer tokens of [`ISSUER`], for one of these audiences, or for any if there are none.
pub(crate) fn rule(audiences: &[&str], keys: KeySet) -> JwtRule {
    JwtRule {
        issuer: ISSUER.into(),
        audiences: audiences.iter().map(|name| (*name).to_owned()).collect(),
        keys: KeySource::Inline(Arc::new(keys)),
        places: vec![TokenPlace::Bearer],
        keeps_token: false,
        payload_to: None,
        claims_to: vec![],
        is_required: false,
        word_lists: vec![],
        timeout: JwtRule::DEFAULT_TIMEOUT,
    }
}

/// A key set.
pub(crate) fn key_set(keys: &[&Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What a verified token with these claims is.
#[cfg(test)]
pub(crate) fn verified(claims: &Value, word_lists: &[&str]) -> super::Token {
    let text = |name: &str| Some(claims[name].as_str()?.to_owned());
    let audiences = match &claims["aud"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect::<Vec<_>>(),
    };
    super::Token {
        issuer: text("iss").unwrap_or_default(),
        subject: text("sub"),
        audiences: audiences.into_iter().map(str::to_owned).collect(),
        presenter: text("azp"),
        claims: claims.as_object().cloned().unwrap_or_default(),
        word_lists: word_lists.iter().map(|name| (*name).to_owned()).collect(),
    }
}
