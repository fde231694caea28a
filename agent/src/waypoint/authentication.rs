//! Who makes a request, by the token it carries and as RequestAuthentications say.
//!
//! A request without token is nobody's, and goes on; AuthorizationPolicies decide whether it may. One with a token
//! that isn't good is refused, whatever else it carries.

mod tokens;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode, request::Parts};

use self::tokens::Found;
use super::jwks::{KeyCache, Settings};
use crate::policy::{
    Token,
    jwt::{TokenError, Unverified},
    model::{JwtRule, RequestAuthentication},
};

/// Verifies the tokens of requests. It keeps the keys of issuers, so one does for a waypoint.
#[derive(Debug, Default)]
pub struct Authenticator {
    keys: KeyCache,
}

/// Why a request is refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// It must have a token, and has none.
    #[error("the request has no token, and must have one")]
    Missing,
    /// Nobody could say which of them counts.
    #[error("the request has more than one token in one place")]
    Several,
    /// The token isn't good.
    #[error("{0}")]
    Invalid(#[from] TokenError),
    /// The issuer's keys couldn't be had.
    #[error("the keys of the token's issuer could not be fetched")]
    NoKeys,
}

impl AuthenticationError {
    /// What the client is answered: as Istio's proxies do.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(TokenError::Audience) => StatusCode::FORBIDDEN,
            Self::Missing | Self::Several | Self::Invalid(_) | Self::NoKeys => {
                StatusCode::UNAUTHORIZED
            }
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, section 3); `None` where the answer isn't 401.
    #[must_use]
    pub fn challenge(&self, host: &str) -> Option<HeaderValue> {
        if self.status() != StatusCode::UNAUTHORIZED {
            return None;
        }
        // The client's own words, so only what a host may have.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-_:[]".contains(*c);
        let realm: String = host.chars().filter(is_plain).collect();
        let error = match self {
            Self::Missing => "",
            Self::Several | Self::Invalid(_) | Self::NoKeys => ", error=\"invalid_token\"",
        };
        HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}")).ok()
    }
}

impl Authenticator {
    /// With other times than [`Default`]'s for the keys.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            keys: KeyCache::new(settings),
        }
    }

    /// Has keys fetched that will be asked for, so that the first request needn't wait for them.
    pub fn prepare<'a>(&self, policies: impl IntoIterator<Item = &'a Arc<RequestAuthentication>>) {
        let rules = policies.into_iter().flat_map(|policy| &policy.rules);
        for rule in rules {
            self.keys.prepare(&rule.keys);
        }
    }

    /// Says who makes a request by its token; `None` if it has none. Takes tokens out that aren't to be forwarded, and
    /// sets the headers that rules ask for, which clients can't. Waits for keys only if the token's issuer has none yet
    /// or a new one.
    ///
    /// # Errors
    /// [`AuthenticationError`].
    pub async fn authenticate(
        &self,
        policies: &[Arc<RequestAuthentication>],
        request: &mut Parts,
    ) -> Result<Option<Token>, AuthenticationError> {
        if policies.is_empty() {
            return Ok(None);
        }
        let rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
        let found = tokens::find(&rules, request)?;
        tokens::clear_outputs(&rules, request);
        if found.is_empty() && rules.iter().any(|rule| rule.is_required) {
            return Err(AuthenticationError::Missing);
        }
        let mut first = None;
        for token in &found {
            let (verified, rule) = self.verify(token, now()).await?;
            tokens::set_outputs(rule, token, &verified, request);
            if !rule.keeps_token {
                tokens::remove(token, request);
            }
            first.get_or_insert(verified);
        }
        Ok(first)
    }

    /// By the rules that look where the token was found, those of its issuer: one must hold.
    async fn verify<'a>(
        &self,
        found: &Found<'a>,
        now: u64,
    ) -> Result<(Token, &'a JwtRule), AuthenticationError> {
        let mut failure = None;
        for rule in &found.rules {
            let token = Unverified::read(&found.text)?;
            match token.check(rule, now) {
                Ok(()) => match self.verify_by(rule, &found.text, token).await {
                    Ok(token) => return Ok((token, rule)),
                    Err(error) => failure = failure.or(Some(error)),
                },
                // Says nothing of a token that is of another rule's issuer.
                Err(TokenError::UnknownIssuer) => {}
                Err(error) => failure = failure.or(Some(error.into())),
            }
        }
        Err(failure.unwrap_or(TokenError::UnknownIssuer.into()))
    }

    async fn verify_by(
        &self,
        rule: &JwtRule,
        text: &str,
        token: Unverified<'_>,
    ) -> Result<Token, AuthenticationError> {
        let keys = self.keys.keys(&rule.keys, rule.timeout).await;
        let keys = keys.ok_or(AuthenticationError::NoKeys)?;
        match token.verify(rule, &keys) {
            // The issuer may have a new key since.
            Err(TokenError::UnknownKey) => {
                let keys = self.keys.newer(&rule.keys, rule.timeout).await;
                let keys = keys.ok_or(TokenError::UnknownKey)?;
                Ok(Unverified::read(text)?.verify(rule, &keys)?)
            }
            verified => Ok(verified?),
        }
    }
}

/// Whether the token of a request that is under way, or that it has none, would do now. What a token says is believed
/// for as long as a rule trusts its issuer for one of its audiences. Answers the token that counts: without a rule, none
/// does.
///
/// # Errors
/// [`AuthenticationError`], if the request would be refused.
pub fn still_holds<'a>(
    policies: &[Arc<RequestAuthentication>],
    token: Option<&'a Token>,
) -> Result<Option<&'a Token>, AuthenticationError> {
    let mut rules = policies.iter().flat_map(|policy| &policy.rules);
    let Some(token) = token else {
        return match rules.any(|rule| rule.is_required) {
            true => Err(AuthenticationError::Missing),
            false => Ok(None),
        };
    };
    if policies.is_empty() {
        return Ok(None);
    }
    let mut trusted = rules.filter(|rule| rule.issuer == token.issuer).peekable();
    if trusted.peek().is_none() {
        return Err(TokenError::UnknownIssuer.into());
    }
    match trusted.any(|rule| rule.is_for(&token.audiences)) {
        true => Ok(Some(token)),
        false => Err(TokenError::Audience.into()),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 makes every token one of the future.
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
