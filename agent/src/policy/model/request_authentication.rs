//! Who is believed to say who makes a request.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::Target;
use crate::{discovery::model::ObjectName, policy::jwt::KeySet};

/// A `security.istio.io` RequestAuthentication.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAuthentication {
    /// Namespace and name.
    pub name: ObjectName,
    /// What it is attached to.
    pub target: Target,
    /// The issuers that are trusted.
    pub rules: Vec<JwtRule>,
}

/// One entry of `jwtRules`: an issuer, and what becomes of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// `audiences`, one of which a token must be for. None: it may be for anybody.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Where in a request its tokens are looked for, in that order.
    pub places: Vec<TokenPlace>,
    /// `forwardOriginalToken`: tokens stay in the request.
    pub keeps_token: bool,
    /// `outputPayloadToHeader`.
    pub payload_to: Option<HeaderName>,
    /// `outputClaimToHeaders`: headers, and paths of the claims that they get.
    pub claims_to: Vec<(HeaderName, Vec<String>)>,
    /// `presence: REQUIRED`: requests without token are refused.
    pub is_required: bool,
    /// `spaceDelimitedClaims`.
    pub word_lists: Vec<String>,
    /// How long a request may wait for the keys.
    pub timeout: Duration,
}

impl JwtRule {
    /// [`JwtRule::timeout`] unless another is asked for: Istio's.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Whether a token for these may be taken.
    #[must_use]
    pub fn is_for(&self, audiences: &[String]) -> bool {
        let mut named = audiences.iter();
        self.audiences.is_empty() || named.any(|name| self.audiences.contains(name))
    }

    /// The headers that only this may set: whatever a client sends in them is taken out.
    pub fn output_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let claims = self.claims_to.iter().map(|(header, _)| header);
        self.payload_to.iter().chain(claims)
    }
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// `jwks`.
    Inline(Arc<KeySet>),
    /// `jwksUri`.
    Url(Arc<str>),
    /// Neither: where the issuer's own discovery document says (OpenID Connect Discovery). This is its URL.
    Discovered(Arc<str>),
}

/// Where in a request a token may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer`, where the word's case doesn't matter.
    Bearer,
    /// `fromHeaders`: a header, and what stands before the token.
    Header {
        /// The header.
        name: HeaderName,
        /// What stands before the token; values without it have none.
        prefix: String,
    },
    /// `fromParams`: a parameter of the query.
    Parameter(String),
    /// `fromCookies`: a cookie.
    Cookie(String),
}
