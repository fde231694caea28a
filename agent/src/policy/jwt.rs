//! JSON Web Tokens (RFC 7519) of issuers that an operator trusts. Pure: keys and time are given.

pub mod keys;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use self::keys::{KeySet, KeySetError};
use super::model::{JwtRule, Pattern};

/// How far clocks may be apart, in seconds: as Istio's proxies have it.
const CLOCK_SKEW: f64 = 60.0;
/// The longest token that is read, in bytes: headers of a request are bounded to about as much.
const LONGEST: usize = 16 << 10;
/// Claims whose text is a list of words, beside those that a rule names: as Istio has it.
const WORD_LISTS: [&str; 2] = ["scope", "permission"];

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `azp`.
    pub presenter: Option<String>,
    /// All claims, those among them.
    pub claims: Map<String, Value>,
    /// Claims beside [`WORD_LISTS`] whose text is a list of words.
    word_lists: Vec<String>,
}

impl Token {
    /// `issuer/subject`; `None` without subject.
    #[must_use]
    pub fn principal(&self) -> Option<String> {
        let subject = self.subject.as_deref()?;
        Some(format!("{}/{subject}", self.issuer))
    }

    /// Whether a claim, nested ones by their path, has a value that fits: of a list, one of its values.
    #[must_use]
    pub fn claim_fits(&self, path: &[String], pattern: &Pattern) -> bool {
        let Some(value) = self.claim(path) else {
            return false;
        };
        let is_word_list = path.last().is_some_and(|name| {
            WORD_LISTS.contains(&name.as_str()) || self.word_lists.contains(name)
        });
        match value {
            Value::String(words) if is_word_list && words.contains(' ') => {
                pattern.fits(words) || words.split(' ').any(|word| pattern.fits(word))
            }
            Value::Array(values) => values.iter().any(|value| fits(pattern, value)),
            value => fits(pattern, value),
        }
    }

    /// The claim at a path.
    #[must_use]
    pub fn claim(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.claims.get(first)?, |value, name| value.get(name))
    }
}

fn fits(pattern: &Pattern, value: &Value) -> bool {
    match value {
        Value::String(text) => pattern.fits(text),
        Value::Bool(_) | Value::Number(_) => pattern.fits(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Why a token isn't accepted. The words are for the client, and tell nothing of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64 and JSON.
    #[error("the token is not a JWT")]
    Malformed,
    /// It needs an extension that isn't known (RFC 7515, 4.1.11).
    #[error("the token asks for an extension that is not supported")]
    Critical,
    /// No signature, a symmetric one, or one that isn't known.
    #[error("the token's algorithm is not accepted: it must be asymmetric")]
    Algorithm,
    /// Nobody trusts it.
    #[error("the token's issuer is not configured")]
    UnknownIssuer,
    /// Its `exp` is over.
    #[error("the token is expired")]
    Expired,
    /// Its `nbf` is still to come.
    #[error("the token is not yet valid")]
    NotYetValid,
    /// It is for somebody else.
    #[error("the token's audiences are not allowed")]
    Audience,
    /// None of the issuer's keys is the token's: it may have a new one.
    #[error("the token is signed with a key that its issuer has not published")]
    UnknownKey,
    /// The key is known, and didn't sign this.
    #[error("the token's signature is wrong")]
    Signature,
}

/// A token that says things nobody has proven yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: &'a str,
    header: Header,
    claims: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError::Malformed`], [`TokenError::Critical`].
    pub fn read(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > LONGEST {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = decode(header)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        Ok(Self {
            signed,
            signature,
            header,
            claims: decode(claims)?,
        })
    }

    /// `iss`, as it says.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// What can be said without a key: is it the rule's issuer's, in time, and for one of its audiences. `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(&self, rule: &JwtRule, now: u64) -> Result<(), TokenError> {
        if self.issuer() != Some(&rule.issuer) {
            return Err(TokenError::UnknownIssuer);
        }
        algorithm(&self.header)?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are far below 2^52"
        )]
        let now = now as f64;
        if self.time("exp")?.is_some_and(|end| now >= end + CLOCK_SKEW) {
            return Err(TokenError::Expired);
        }
        if self
            .time("nbf")?
            .is_some_and(|start| now < start - CLOCK_SKEW)
        {
            return Err(TokenError::NotYetValid);
        }
        if !rule.is_for(&self.audiences()?) {
            return Err(TokenError::Audience);
        }
        Ok(())
    }

    /// Believes a token that was [checked](Self::check), if one of the keys has signed it.
    ///
    /// # Errors
    /// [`TokenError::Algorithm`], [`TokenError::UnknownKey`], [`TokenError::Signature`], [`TokenError::Malformed`].
    pub fn verify(self, rule: &JwtRule, keys: &KeySet) -> Result<Token, TokenError> {
        let algorithm = algorithm(&self.header)?;
        keys.verify(
            self.header.kid.as_deref(),
            algorithm,
            self.signed.as_bytes(),
            self.signature,
        )?;
        let text = |name| Some(self.claims.get(name)?.as_str()?.to_owned());
        Ok(Token {
            issuer: rule.issuer.clone(),
            subject: text("sub").filter(|subject| !subject.is_empty()),
            audiences: self.audiences()?,
            presenter: text("azp"),
            word_lists: rule.word_lists.clone(),
            claims: self.claims,
        })
    }

    /// A time, if it is said. One that can't be read isn't taken for none.
    fn time(&self, claim: &str) -> Result<Option<f64>, TokenError> {
        let value = self.claims.get(claim);
        value
            .map(|value| value.as_f64().ok_or(TokenError::Malformed))
            .transpose()
    }

    fn audiences(&self) -> Result<Vec<String>, TokenError> {
        let name = |value: &Value| Some(value.as_str()?.to_owned());
        let named = match self.claims.get("aud") {
            None => Some(Vec::new()),
            Some(Value::Array(names)) => names.iter().map(name).collect(),
            Some(one) => name(one).map(|name| vec![name]),
        };
        named.ok_or(TokenError::Malformed)
    }
}

fn algorithm(header: &Header) -> Result<Algorithm, TokenError> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let accepted = [
        RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA,
    ];
    let asked = header.alg.parse().map_err(|_| TokenError::Algorithm)?;
    let mut accepted = accepted.into_iter();
    accepted
        .find(|algorithm| *algorithm == asked)
        .ok_or(TokenError::Algorithm)
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
