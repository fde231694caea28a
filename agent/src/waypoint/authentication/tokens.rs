//! Tokens in requests: found, taken out, and passed on as headers. Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE},
    request::Parts,
    uri::PathAndQuery,
};
use serde_json::Value;

use super::AuthenticationError;
use crate::policy::{
    Token,
    model::{JwtRule, TokenPlace},
};

/// A token, and who is to look at it.
pub(super) struct Found<'a> {
    pub(super) text: String,
    place: &'a TokenPlace,
    /// The rules that look in that place, in their order.
    pub(super) rules: Vec<&'a JwtRule>,
}

/// Every token of a request, in the order of rules and of their places.
pub(super) fn find<'a>(
    rules: &[&'a JwtRule],
    request: &Parts,
) -> Result<Vec<Found<'a>>, AuthenticationError> {
    let mut found: Vec<Found<'a>> = Vec::new();
    for rule in rules {
        for place in &rule.places {
            if let Some(known) = found.iter_mut().find(|known| known.place == place) {
                known.rules.push(rule);
            } else if let Some(text) = token_in(place, request)? {
                found.push(Found {
                    text: text.to_owned(),
                    place,
                    rules: vec![rule],
                });
            }
        }
    }
    Ok(found)
}

/// The token in a place. Of several values in it servers may take different ones, so they aren't accepted.
fn token_in<'r>(
    place: &TokenPlace,
    request: &'r Parts,
) -> Result<Option<&'r str>, AuthenticationError> {
    match place {
        TokenPlace::Bearer => in_header(request, &AUTHORIZATION, bearer),
        TokenPlace::Header { name, prefix } => {
            in_header(request, name, |value| value.strip_prefix(&**prefix))
        }
        TokenPlace::Parameter(name) => only(parameters(request.uri.query(), name)),
        TokenPlace::Cookie(name) => {
            let headers = request.headers.get_all(COOKIE).into_iter();
            let values = headers.filter_map(|value| value.to_str().ok());
            only(
                values
                    .flat_map(cookies)
                    .filter_map(|(of, value)| (of == name).then_some(value)),
            )
        }
    }
}

fn in_header<'r>(
    request: &'r Parts,
    name: &HeaderName,
    token: impl Fn(&'r str) -> Option<&'r str>,
) -> Result<Option<&'r str>, AuthenticationError> {
    let values = || request.headers.get_all(name).into_iter();
    let tokens = values().filter_map(|value| token(value.to_str().ok()?));
    match only(tokens)? {
        Some(_) if values().count() > 1 => Err(AuthenticationError::Several),
        token => Ok(token.map(str::trim)),
    }
}

fn only<'r>(
    mut tokens: impl Iterator<Item = &'r str>,
) -> Result<Option<&'r str>, AuthenticationError> {
    let first = tokens.next();
    match tokens.next() {
        Some(_) => Err(AuthenticationError::Several),
        None => Ok(first),
    }
}

/// What is behind `Bearer`, however that is written (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim_start().split_once([' ', '\t'])?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn parameters<'r>(query: Option<&'r str>, name: &str) -> impl Iterator<Item = &'r str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs.filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn cookies(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = header.split(';').map(str::trim);
    pairs.filter_map(|pair| pair.split_once('='))
}

/// Takes a token out of the request.
pub(super) fn remove(found: &Found<'_>, request: &mut Parts) {
    match found.place {
        TokenPlace::Bearer => {
            request.headers.remove(AUTHORIZATION);
        }
        TokenPlace::Header { name, .. } => {
            request.headers.remove(name);
        }
        TokenPlace::Parameter(name) => {
            let is_it = |pair: &&str| pair.split('=').next() == Some(name);
            let rest: Vec<_> = request
                .uri
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !is_it(pair))
                .collect();
            set_query(request, &rest.join("&"));
        }
        TokenPlace::Cookie(name) => {
            let values = request.headers.get_all(COOKIE).into_iter();
            let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
            let pairs = values
                .iter()
                .flat_map(|value| value.split(';').map(str::trim));
            let rest: Vec<_> = pairs
                .filter(|pair| pair.split('=').next() != Some(name))
                .collect();
            let rest = HeaderValue::try_from(rest.join("; "));
            request.headers.remove(COOKIE);
            if let Some(rest) = rest.ok().filter(|rest| !rest.is_empty()) {
                request.headers.insert(COOKIE, rest);
            }
        }
    }
}

fn set_query(request: &mut Parts, query: &str) {
    let path = request.uri.path();
    let target = match query {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    // Parts of what was a path and query are one, and a scheme that was there still has its authority.
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    request.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Takes out whatever the client put into headers that rules set, in the spellings that servers take for
/// them as well.
pub(super) fn clear_outputs(rules: &[&JwtRule], request: &mut Parts) {
    for output in rules.iter().flat_map(|rule| rule.output_headers()) {
        let plain = |name: &HeaderName| name.as_str().replace('_', "-");
        let wanted = plain(output);
        let names = request.headers.keys().filter(|name| plain(name) == wanted);
        for name in names.cloned().collect::<Vec<_>>() {
            request.headers.remove(name);
        }
    }
}

/// Sets the headers that the rule asks for. One that is set by the token before stays.
pub(super) fn set_outputs(rule: &JwtRule, found: &Found<'_>, token: &Token, request: &mut Parts) {
    let mut set = |name: &HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers.entry(name).or_insert(value);
        }
    };
    if let Some(name) = &rule.payload_to {
        let payload = found.text.split('.').nth(1);
        // Without padding, as it is in the token.
        set(name, payload.unwrap_or_default());
    }
    for (name, path) in &rule.claims_to {
        match token.claim(path) {
            Some(Value::String(text)) => set(name, text),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => set(name, &value.to_string()),
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                set(name, &URL_SAFE_NO_PAD.encode(value.to_string()));
            }
            Some(Value::Null) | None => {}
        }
    }
}
