//! What rules match.

use std::{borrow::Cow, fmt::Display};

use http::{HeaderName, Method};
use serde::Deserialize;

use super::{
    super::FieldError,
    values::{header_name, limited},
};
use crate::{
    discovery::model::{PathMatch, Pattern, RequestMatch, RouteKind, TextMatch},
    policy::path::normalise,
};

const MAX_CONDITIONS: usize = 16;
/// Of a path, a query parameter's value, a service or a method.
const MAX_TEXT: usize = 1024;
const MAX_HEADER: usize = 4096;
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What one kind of route asks of requests.
pub(in crate::discovery) trait RawMatch {
    /// The kind.
    const KIND: RouteKind;

    /// Checks what is said under `field`.
    fn check(&self, field: &str) -> Result<RequestMatch, FieldError>;
}

/// What an HTTPRoute asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::discovery) struct HttpMatch {
    path: Option<RawText>,
    method: Option<String>,
    #[serde(default)]
    headers: Vec<Named>,
    #[serde(default)]
    query_params: Vec<Named>,
}

/// What a GRPCRoute asks.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct GrpcMatch {
    method: Option<RawCall>,
    #[serde(default)]
    headers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct RawText {
    #[serde(rename = "type")]
    kind: Option<String>,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct RawCall {
    #[serde(rename = "type")]
    kind: Option<String>,
    service: Option<String>,
    method: Option<String>,
}

/// What a rule matches that doesn't say.
pub(super) fn every_request() -> RequestMatch {
    RequestMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

impl RawMatch for HttpMatch {
    const KIND: RouteKind = RouteKind::Http;

    fn check(&self, field: &str) -> Result<RequestMatch, FieldError> {
        let path = match &self.path {
            None => PathMatch::Prefix("".into()),
            Some(path) => path_match(&format!("{field}.path"), path)?,
        };
        let method = match &self.method {
            None => None,
            Some(name) => Some(method(&format!("{field}.method"), name)?),
        };
        Ok(RequestMatch {
            path,
            method,
            headers: headers(field, &self.headers)?,
            query: query(&format!("{field}.queryParams"), &self.query_params)?,
        })
    }
}

impl RawMatch for GrpcMatch {
    const KIND: RouteKind = RouteKind::Grpc;

    fn check(&self, field: &str) -> Result<RequestMatch, FieldError> {
        let path = match &self.method {
            None => PathMatch::Prefix("".into()),
            Some(call) => call_match(&format!("{field}.method"), call)?,
        };
        Ok(RequestMatch {
            path,
            headers: headers(field, &self.headers)?,
            ..every_request()
        })
    }
}

fn path_match(field: &str, path: &RawText) -> Result<PathMatch, FieldError> {
    let value = path.value.as_deref().unwrap_or("/");
    let of_value = format!("{field}.value");
    bounded(&of_value, value, MAX_TEXT)?;
    match path.kind.as_deref() {
        Some("Exact") => Ok(PathMatch::Exact(
            plain_path(&of_value, value)?.as_ref().into(),
        )),
        None | Some("PathPrefix") => {
            let prefix = plain_path(&of_value, value)?;
            Ok(PathMatch::Prefix(prefix.trim_end_matches('/').into()))
        }
        Some("RegularExpression") => Ok(PathMatch::Pattern(pattern(&of_value, value)?)),
        Some(other) => Err(FieldError::unexpected(
            format!("{field}.type"),
            other,
            "\"Exact\", \"PathPrefix\" or \"RegularExpression\"",
        )),
    }
}

/// A path as requests have it once theirs is normalised.
fn plain_path<'a>(field: &str, path: &'a str) -> Result<Cow<'a, str>, FieldError> {
    let wrong = |reason: &dyn Display| FieldError::new(field, format!("\"{path}\" {reason}"));
    if !path.starts_with('/') {
        return Err(wrong(&"must begin with \"/\""));
    }
    let normal = normalise(path).map_err(|error| wrong(&format!("is of no use: {error}")))?;
    let never = [("//", "//"), ("/./", "/."), ("/../", "/..")];
    let mut found = never
        .iter()
        .filter(|(inside, end)| path.contains(inside) || path.ends_with(end));
    match found.next() {
        // Whoever wrote that meant something else than what it comes to.
        Some((part, _)) => Err(wrong(&format!(
            "must not contain \"{part}\", which no request's path does when it is matched; write \"{normal}\""
        ))),
        None => Ok(normal),
    }
}

pub(super) fn method(field: &str, name: &str) -> Result<Method, FieldError> {
    let known = METHODS.iter().find(|method| method.as_str() == name);
    known.cloned().ok_or_else(|| {
        let expected = "one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE and PATCH";
        FieldError::unexpected(field, name, expected)
    })
}

/// Of several conditions on one header the first counts.
fn headers(field: &str, raw: &[Named]) -> Result<Vec<(HeaderName, TextMatch)>, FieldError> {
    let field = format!("{field}.headers");
    limited(&field, raw, MAX_CONDITIONS)?;
    let mut headers: Vec<(HeaderName, TextMatch)> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = header_name(&format!("{field}.name"), &raw.name)?;
        let wanted = raw.text(&field, MAX_HEADER)?;
        if headers.iter().all(|(other, _)| *other != name) {
            headers.push((name, wanted));
        }
    }
    Ok(headers)
}

/// Of several conditions on one parameter the first counts.
fn query(field: &str, raw: &[Named]) -> Result<Vec<(Box<str>, TextMatch)>, FieldError> {
    limited(field, raw, MAX_CONDITIONS)?;
    let mut query: Vec<(Box<str>, TextMatch)> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if raw.name.is_empty() {
            return Err(FieldError::new(format!("{field}.name"), "is missing"));
        }
        let wanted = raw.text(&field, MAX_TEXT)?;
        if query.iter().all(|(other, _)| **other != *raw.name) {
            query.push((raw.name.as_str().into(), wanted));
        }
    }
    Ok(query)
}

impl Named {
    fn text(&self, field: &str, most: usize) -> Result<TextMatch, FieldError> {
        text(field, self.kind.as_deref(), "value", &self.value, most)
    }
}

/// A condition on a text that has to be there.
fn text(
    field: &str,
    kind: Option<&str>,
    key: &str,
    value: &str,
    most: usize,
) -> Result<TextMatch, FieldError> {
    let of_value = format!("{field}.{key}");
    if value.is_empty() {
        return Err(FieldError::new(of_value, "is missing"));
    }
    bounded(&of_value, value, most)?;
    match kind {
        None | Some("Exact") => Ok(TextMatch::Exact(value.into())),
        Some("RegularExpression") => Ok(TextMatch::Pattern(pattern(&of_value, value)?)),
        Some(other) => Err(FieldError::unexpected(
            format!("{field}.type"),
            other,
            "\"Exact\" or \"RegularExpression\"",
        )),
    }
}

fn call_match(field: &str, call: &RawCall) -> Result<PathMatch, FieldError> {
    let kind = call.kind.as_deref();
    let part = |key: &str, value: &Option<String>| -> Result<Option<TextMatch>, FieldError> {
        match value.as_deref() {
            None | Some("") => Ok(None),
            Some(value) => Ok(Some(text(field, kind, key, value, MAX_TEXT)?)),
        }
    };
    let service = part("service", &call.service)?;
    let method = part("method", &call.method)?;
    let name = |key: &str, text: &str, may_have_dots: bool| {
        let word = |word: &str| {
            let mut all = word.bytes();
            all.next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
                && all.all(|c| c.is_ascii_alphanumeric() || c == b'_')
        };
        let fits = match may_have_dots {
            true => text.split('.').all(word),
            false => word(text),
        };
        fits.then_some(()).ok_or_else(|| {
            let expected =
                "a name of a gRPC service or method, such as \"shop.v1.Cart\" and \"Add\"";
            FieldError::unexpected(format!("{field}.{key}"), text, expected)
        })
    };
    Ok(match (service, method) {
        (None, None) => {
            let reason = "has neither service nor method: say one, or leave it out";
            return Err(FieldError::new(field, reason));
        }
        (Some(TextMatch::Exact(service)), method @ (None | Some(TextMatch::Exact(_)))) => {
            // A name may be given from the root, as descriptors do.
            let service = service.strip_prefix('.').unwrap_or(&service);
            name("service", service, true)?;
            match method {
                Some(TextMatch::Exact(method)) => {
                    name("method", &method, false)?;
                    PathMatch::Exact(format!("/{service}/{method}").into())
                }
                _ => PathMatch::Prefix(format!("/{service}").into()),
            }
        }
        (service, method) => {
            if let Some(TextMatch::Exact(method)) = &method {
                name("method", method, false)?;
            }
            PathMatch::Call { service, method }
        }
    })
}

fn pattern(field: &str, text: &str) -> Result<Pattern, FieldError> {
    Pattern::parse(text).map_err(|error| FieldError::new(field, error.to_string()))
}

fn bounded(field: &str, text: &str, most: usize) -> Result<(), FieldError> {
    match text.len() <= most {
        true => Ok(()),
        false => Err(FieldError::new(
            field,
            format!("has {} characters: {most} are allowed", text.len()),
        )),
    }
}
