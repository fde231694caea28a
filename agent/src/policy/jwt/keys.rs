//! The public keys of an issuer (JSON Web Key Set, RFC 7517).

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::TokenError;

/// The most keys of a set that are kept: each may be tried for a token that names none.
const MOST: usize = 100;

/// The keys of an issuer that can verify signatures. Others are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    jwk: Jwk,
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

/// Why a text is of no use as a key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON with `keys`.
    #[error("not a JSON Web Key Set, which is {{\"keys\": [...]}}: {0}")]
    Syntax(String),
    /// No key is left.
    #[error(
        "none of its {0} keys is a public key for signatures (RSA, EC of P-256 or P-384, or Ed25519)"
    )]
    NoKey(usize),
    /// More than are kept.
    #[error("it has {0} keys, and {MOST} is the most")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Fields {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a key set. Keys that can't verify signatures are left out, symmetric ones always: whoever can verify by
    /// them can sign.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn read(text: &[u8]) -> Result<Self, KeySetError> {
        let fields: Fields =
            serde_json::from_slice(text).map_err(|error| KeySetError::Syntax(error.to_string()))?;
        let all = fields.keys.len();
        if all > MOST {
            return Err(KeySetError::TooMany(all));
        }
        let keys: Vec<Key> = fields.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKey(all));
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys has signed the text: the one that the token names, or else any that can do the
    /// algorithm. The algorithm must be the key's, whatever the token says.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &str,
    ) -> Result<(), TokenError> {
        let is_named = |key: &&Key| match (id, key.jwk.common.key_id.as_deref()) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        };
        let mut fitting = self
            .0
            .iter()
            .filter(is_named)
            .filter(|key| key.algorithms.contains(&algorithm))
            .peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let has_signed =
            |key: &Key| crypto::verify(signature, signed, &key.key, algorithm) == Ok(true);
        match fitting.any(has_signed) {
            true => Ok(()),
            false => Err(TokenError::Signature),
        }
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let is_for_signatures =
            !matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let algorithms = algorithms(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (is_for_signatures && verifies).then_some(Self {
            jwk,
            key,
            algorithms,
        })
    }
}

/// What a key may be used with: what it says, if that fits its type, or else all that fit.
fn algorithms(jwk: &Jwk) -> Option<&'static [Algorithm]> {
    let of_type: &'static [Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            EllipticCurve::P521 | EllipticCurve::Ed25519 => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            EllipticCurve::P256 | EllipticCurve::P384 | EllipticCurve::P521 => return None,
        },
        AlgorithmParameters::OctetKey(_) => return None,
    };
    let Some(said) = jwk.common.key_algorithm else {
        return Some(of_type);
    };
    let at = of_type.iter().position(|it| is_same(said, *it))?;
    Some(&of_type[at..=at])
}

fn is_same(said: KeyAlgorithm, algorithm: Algorithm) -> bool {
    said.to_string().parse() == Ok(algorithm)
}
