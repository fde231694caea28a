//! The spec of a RequestAuthentication.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Uri, header::AUTHORIZATION};
use jiff::SignedDuration;
use serde::Deserialize;

use super::{
    target::{Reference, target},
    values::{Fields, List, Readable, SelectorField, Text, not_null},
};
use crate::{
    discovery::model::ObjectName,
    policy::{
        jwt::KeySet,
        model::{JwtRule, KeySource, RequestAuthentication, Target, TokenPlace},
    },
};

/// A spec in which every value is good by itself and with its neighbours.
#[derive(Deserialize)]
#[serde(try_from = "Fields<SpecFields>")]
pub(super) struct Spec {
    target: Target,
    rules: Vec<JwtRule>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            target: Target::Workloads(<_>::default()),
            rules: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SpecFields {
    #[serde(default, deserialize_with = "not_null")]
    selector: Option<Fields<SelectorField>>,
    #[serde(default, deserialize_with = "not_null")]
    target_ref: Option<Reference>,
    #[serde(default)]
    target_refs: List<Reference>,
    #[serde(default)]
    jwt_rules: Vec<Rule>,
}

impl TryFrom<Fields<SpecFields>> for Spec {
    type Error = &'static str;

    fn try_from(Fields(fields): Fields<SpecFields>) -> Result<Self, Self::Error> {
        Ok(Self {
            target: target(fields.selector, fields.target_ref, fields.target_refs)?,
            rules: fields.jwt_rules.into_iter().map(|rule| rule.0).collect(),
        })
    }
}

impl Spec {
    pub(super) fn policy(self, name: ObjectName) -> RequestAuthentication {
        RequestAuthentication {
            name,
            target: self.target,
            rules: self.rules,
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Fields<RuleFields>")]
struct Rule(JwtRule);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleFields {
    issuer: Text<String>,
    #[serde(default)]
    audiences: List<Text<String>>,
    #[serde(default, alias = "jwks_uri")]
    jwks_uri: Option<Text<KeyUrl>>,
    #[serde(default)]
    jwks: Option<Text<InlineKeys>>,
    #[serde(default)]
    from_headers: List<Fields<HeaderPlace>>,
    #[serde(default)]
    from_params: List<Text<String>>,
    #[serde(default)]
    from_cookies: List<Text<String>>,
    #[serde(default)]
    forward_original_token: bool,
    #[serde(default)]
    output_payload_to_header: Option<Text<HeaderName>>,
    #[serde(default)]
    output_claim_to_headers: List<Fields<ClaimHeader>>,
    #[serde(default)]
    presence: Option<Text<Presence>>,
    #[serde(default)]
    space_delimited_claims: List<Text<String>>,
    #[serde(default)]
    timeout: Option<Text<Patience>>,
}

impl TryFrom<Fields<RuleFields>> for Rule {
    type Error = String;

    fn try_from(Fields(fields): Fields<RuleFields>) -> Result<Self, String> {
        let Text(issuer) = fields.issuer;
        let keys = match (fields.jwks, fields.jwks_uri) {
            (Some(Text(InlineKeys(keys))), None) => KeySource::Inline(keys),
            (None, Some(Text(KeyUrl(url)))) => KeySource::Url(url),
            (None, None) => KeySource::Discovered(discovery(&issuer)?),
            (Some(_), Some(_)) => {
                return Err("only one of jwks and jwksUri can be set: take one out".to_owned());
            }
        };
        let headers = fields.from_headers.0.into_iter();
        let headers = headers.map(|Fields(place)| place.place());
        let parameters = fields.from_params.values().into_iter();
        let cookies = fields.from_cookies.values().into_iter();
        let mut places: Vec<_> = headers
            .chain(parameters.map(TokenPlace::Parameter))
            .chain(cookies.map(TokenPlace::Cookie))
            .collect();
        if places.is_empty() {
            // Where Istio looks, if nothing is said.
            places = vec![
                TokenPlace::Bearer,
                TokenPlace::Parameter("access_token".to_owned()),
            ];
        }
        let claims = fields.output_claim_to_headers.0.into_iter();
        Ok(Self(JwtRule {
            issuer,
            audiences: fields.audiences.values(),
            keys,
            places,
            keeps_token: fields.forward_original_token,
            payload_to: fields.output_payload_to_header.map(|Text(name)| name),
            claims_to: claims
                .map(|Fields(ClaimHeader { header, claim })| {
                    (header.0, claim.0.split('.').map(str::to_owned).collect())
                })
                .collect(),
            is_required: matches!(fields.presence, Some(Text(Presence::Required))),
            word_lists: fields.space_delimited_claims.values(),
            timeout: fields
                .timeout
                .map_or(JwtRule::DEFAULT_TIMEOUT, |Text(Patience(time))| time),
        }))
    }
}

/// Where the issuer says where its keys are.
fn discovery(issuer: &str) -> Result<Arc<str>, String> {
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let KeyUrl(url) = KeyUrl::read(&url).map_err(|_| {
        format!("issuer {issuer:?} is no URL that could tell its keys: write jwks or jwksUri")
    })?;
    Ok(url)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderPlace {
    name: Text<HeaderName>,
    #[serde(default)]
    prefix: String,
}

impl HeaderPlace {
    fn place(self) -> TokenPlace {
        let Text(name) = self.name;
        if name == AUTHORIZATION && self.prefix.trim().eq_ignore_ascii_case("bearer") {
            return TokenPlace::Bearer;
        }
        TokenPlace::Header {
            name,
            prefix: self.prefix,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimHeader {
    header: Text<HeaderName>,
    claim: Text<String>,
}

struct InlineKeys(Arc<KeySet>);

impl Readable for InlineKeys {
    const EXPECTED: &'static str = "a JSON Web Key Set as a string";

    fn read(text: &str) -> Result<Self, String> {
        let keys = KeySet::read(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(keys)))
    }
}

struct KeyUrl(Arc<str>);

impl Readable for KeyUrl {
    const EXPECTED: &'static str = "a URL such as \"https://issuer.example/keys.json\"";

    fn read(text: &str) -> Result<Self, String> {
        let url: Option<Uri> = text.parse().ok();
        let is_right = url.is_some_and(|url| {
            let scheme = url.scheme_str();
            let host = url.authority().filter(|it| !it.as_str().contains('@'));
            matches!(scheme, Some("http" | "https")) && host.is_some()
        });
        match is_right {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "{text:?} is no URL that keys can be fetched from: write https://host/path"
            )),
        }
    }
}

enum Presence {
    Optional,
    Required,
}

impl Readable for Presence {
    const EXPECTED: &'static str = "\"OPTIONAL\" or \"REQUIRED\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "OPTIONAL" => Ok(Self::Optional),
            "REQUIRED" => Ok(Self::Required),
            _ => Err(format!("{text:?} is neither OPTIONAL nor REQUIRED")),
        }
    }
}

struct Patience(Duration);

impl Readable for Patience {
    const EXPECTED: &'static str = "a time such as \"5s\"";

    fn read(text: &str) -> Result<Self, String> {
        let read = text.parse::<SignedDuration>().ok();
        read.and_then(|time| Duration::try_from(time).ok())
            .filter(|time| (SHORTEST..=LONGEST).contains(time))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no time between 1ms and 1m: write for example 5s"))
    }
}

const SHORTEST: Duration = Duration::from_millis(1);
/// A request waits for as long.
const LONGEST: Duration = Duration::from_secs(60);
