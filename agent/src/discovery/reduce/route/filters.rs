//! What rules do to requests.

use http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority};
use serde::Deserialize;

use super::{
    Checker,
    backends::RawTarget,
    values::{header_name, header_value, limited},
};
use crate::discovery::{
    model::{
        Filters, Fraction, HeaderChange, InvalidBackend, Mirror, PathChange, Redirect, Rewrite,
        RouteKind,
    },
    reduce::{FieldError, dns_name, port},
};

mod cors;

use self::cors::RawCors;

const MAX_FILTERS: usize = 16;
const MAX_HEADERS: usize = 16;
const STATUSES: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawFilter {
    #[serde(rename = "type", default)]
    kind: String,
    request_header_modifier: Option<RawHeaders>,
    response_header_modifier: Option<RawHeaders>,
    request_redirect: Option<RawRedirect>,
    url_rewrite: Option<RawRewrite>,
    request_mirror: Option<RawMirror>,
    cors: Option<RawCors>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawHeaders {
    set: Vec<RawHeader>,
    add: Vec<RawHeader>,
    remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRedirect {
    scheme: Option<String>,
    hostname: Option<String>,
    path: Option<RawPath>,
    port: Option<i32>,
    status_code: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRewrite {
    hostname: Option<String>,
    path: Option<RawPath>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPath {
    #[serde(rename = "type", default)]
    kind: String,
    replace_full_path: Option<String>,
    replace_prefix_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMirror {
    backend_ref: RawTarget,
    percent: Option<i64>,
    fraction: Option<RawFraction>,
}

#[derive(Debug, Deserialize)]
struct RawFraction {
    numerator: i64,
    denominator: Option<i64>,
}

impl Checker<'_> {
    /// The filters, or the first that can't be done. `has_prefix`: the rule matches one prefix, so that this
    /// may be replaced.
    pub(super) fn filters(
        &mut self,
        list: &str,
        raw: &[RawFilter],
        has_prefix: bool,
    ) -> Result<Result<Filters, InvalidBackend>, FieldError> {
        limited(list, raw, MAX_FILTERS)?;
        let mut filters = Filters::default();
        let mut refused = None;
        let mut seen: Vec<&str> = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let field = format!("{list}[{index}]");
            let kind = raw.kind.as_str();
            if kind != "RequestMirror" && kind != "ExtensionRef" && seen.contains(&kind) {
                let reason = format!("{kind} is there twice: put both into one filter");
                return Err(FieldError::new(format!("{field}.type"), reason));
            }
            seen.push(kind);
            if !self.filter(&field, raw, has_prefix, &mut filters)? {
                let invalid = InvalidBackend::Filter {
                    filter: kind.to_owned(),
                };
                let effect = "requests that it is for are answered with an error";
                let reason = format!("{invalid}; until then {effect}");
                self.issues
                    .push(FieldError::new(format!("{field}.type"), reason));
                refused.get_or_insert(invalid);
            }
        }
        if filters.redirect.is_some() && filters.rewrite.is_some() {
            let reason = "RequestRedirect and URLRewrite exclude each other: remove one of them";
            return Err(FieldError::new(list, reason));
        }
        Ok(refused.map_or(Ok(filters), Err))
    }

    /// Adds one filter. Whether that can be done here.
    fn filter(
        &mut self,
        field: &str,
        raw: &RawFilter,
        has_prefix: bool,
        filters: &mut Filters,
    ) -> Result<bool, FieldError> {
        let is_http = self.kind == RouteKind::Http;
        match raw.kind.as_str() {
            "RequestHeaderModifier" => {
                let field = format!("{field}.requestHeaderModifier");
                filters.request_headers = header_change(&field, &raw.request_header_modifier)?;
            }
            "ResponseHeaderModifier" => {
                let field = format!("{field}.responseHeaderModifier");
                filters.response_headers = header_change(&field, &raw.response_header_modifier)?;
            }
            "RequestMirror" => {
                let field = format!("{field}.requestMirror");
                let mirror = said(&field, &raw.request_mirror)?;
                let target = self.target(&format!("{field}.backendRef"), &mirror.backend_ref)?;
                let fraction = mirror.fraction(&field)?;
                filters.mirrors.push(Mirror { target, fraction });
            }
            "RequestRedirect" if is_http => {
                let field = format!("{field}.requestRedirect");
                let redirect = said(&field, &raw.request_redirect)?;
                filters.redirect = Some(redirect.check(&field, has_prefix)?);
            }
            "URLRewrite" if is_http => {
                let field = format!("{field}.urlRewrite");
                let rewrite = said(&field, &raw.url_rewrite)?;
                filters.rewrite = Some(Rewrite {
                    hostname: hostname(&field, &rewrite.hostname)?,
                    path: path_change(&field, &rewrite.path, has_prefix)?,
                });
            }
            "CORS" if is_http => {
                let field = format!("{field}.cors");
                filters.cors = Some(said(&field, &raw.cors)?.check(&field)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl RawRedirect {
    fn check(&self, field: &str, has_prefix: bool) -> Result<Redirect, FieldError> {
        let scheme = match self.scheme.as_deref() {
            None => None,
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            Some(other) => {
                let field = format!("{field}.scheme");
                return Err(FieldError::unexpected(
                    field,
                    other,
                    "\"http\" or \"https\"",
                ));
            }
        };
        let status = match self.status_code {
            None => StatusCode::FOUND,
            Some(code) => {
                let mut known = STATUSES.into_iter();
                let known = known.find(|known| i64::from(known.as_u16()) == code);
                known.ok_or_else(|| {
                    let field = format!("{field}.statusCode");
                    FieldError::unexpected(field, code, "301, 302, 303, 307 or 308")
                })?
            }
        };
        Ok(Redirect {
            scheme,
            hostname: hostname(field, &self.hostname)?,
            path: path_change(field, &self.path, has_prefix)?,
            port: match self.port {
                None => None,
                Some(number) => Some(port(format!("{field}.port"), number)?),
            },
            status,
        })
    }
}

impl RawMirror {
    fn fraction(&self, field: &str) -> Result<Fraction, FieldError> {
        let (numerator, denominator) = match (&self.percent, &self.fraction) {
            (None, None) => return Ok(Fraction::ALL),
            (Some(percent), None) => (*percent, 100),
            (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
            (Some(_), Some(_)) => {
                let reason = "is there beside fraction: remove one of them";
                return Err(FieldError::new(format!("{field}.percent"), reason));
            }
        };
        let fraction = (u32::try_from(numerator), u32::try_from(denominator));
        match fraction {
            (Ok(numerator), Ok(denominator)) if denominator > 0 && numerator <= denominator => {
                Ok(Fraction {
                    numerator,
                    denominator,
                })
            }
            _ => Err(FieldError::unexpected(
                field,
                format!("{numerator}/{denominator}"),
                "a part of all requests, from none of them to all",
            )),
        }
    }
}

fn header_change(field: &str, raw: &Option<RawHeaders>) -> Result<HeaderChange, FieldError> {
    let raw = said(field, raw)?;
    let read = |key: &str, list: &[RawHeader]| {
        let field = format!("{field}.{key}");
        limited(&field, list, MAX_HEADERS)?;
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(list.len());
        for (index, header) in list.iter().enumerate() {
            let (name, value) = header.check(&format!("{field}[{index}]"), key == "set")?;
            // Of several entries for one header the first counts.
            if headers.iter().all(|(other, _)| *other != name) {
                headers.push((name, value));
            }
        }
        Ok(headers)
    };
    let remove = format!("{field}.remove");
    limited(&remove, &raw.remove, MAX_HEADERS)?;
    let removed = raw.remove.iter().enumerate();
    let removed =
        removed.map(|(index, name)| changeable(&format!("{remove}[{index}]"), name, false));
    Ok(HeaderChange {
        set: read("set", &raw.set)?,
        add: read("add", &raw.add)?,
        remove: removed.collect::<Result<_, _>>()?,
    })
}

impl RawHeader {
    fn check(&self, field: &str, sets: bool) -> Result<(HeaderName, HeaderValue), FieldError> {
        let name = changeable(&format!("{field}.name"), &self.name, sets)?;
        let field = format!("{field}.value");
        if name == header::HOST && self.value.parse::<Authority>().is_err() {
            return Err(FieldError::unexpected(field, &self.value, "a host"));
        }
        let value = header_value(&field, &self.value)?;
        Ok((name, value))
    }
}

/// What frames a message isn't a filter's to change: another length would make two requests of one. A request
/// has one host, which may be set, but neither added nor removed.
fn changeable(field: &str, name: &str, sets: bool) -> Result<HeaderName, FieldError> {
    use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
    let header = header_name(field, name)?;
    let framing = [
        CONNECTION,
        CONTENT_LENGTH,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    let expected = match header {
        HOST if !sets => "a header that may be added or removed: a request has one host; set it",
        _ if framing.contains(&header) => {
            "a header that may be changed: it says how the message is carried"
        }
        _ => return Ok(header),
    };
    Err(FieldError::unexpected(field, name, expected))
}

fn hostname(field: &str, hostname: &Option<String>) -> Result<Option<Box<str>>, FieldError> {
    match hostname.as_deref() {
        None | Some("") => Ok(None),
        Some(hostname) => Ok(Some(
            dns_name(&format!("{field}.hostname"), hostname)?.into(),
        )),
    }
}

fn path_change(
    field: &str,
    raw: &Option<RawPath>,
    has_prefix: bool,
) -> Result<Option<PathChange>, FieldError> {
    let Some(raw) = raw else { return Ok(None) };
    let field = format!("{field}.path");
    match raw.kind.as_str() {
        "ReplaceFullPath" => {
            let path = usable(&field, "replaceFullPath", &raw.replace_full_path)?;
            Ok(Some(PathChange::Full(rooted(path).into())))
        }
        "ReplacePrefixMatch" => {
            let path = usable(&field, "replacePrefixMatch", &raw.replace_prefix_match)?;
            if !has_prefix {
                let reason = "ReplacePrefixMatch needs a rule with one match, of type PathPrefix";
                return Err(FieldError::new(format!("{field}.type"), reason));
            }
            let path = rooted(path);
            Ok(Some(PathChange::Prefix(path.trim_end_matches('/').into())))
        }
        other => Err(FieldError::unexpected(
            format!("{field}.type"),
            other,
            "\"ReplaceFullPath\" or \"ReplacePrefixMatch\"",
        )),
    }
}

/// A text that can be (the beginning of) a path.
fn usable<'a>(field: &str, key: &str, text: &'a Option<String>) -> Result<&'a str, FieldError> {
    let field = format!("{field}.{key}");
    let text = said(&field, text)?;
    let fits = text.len() <= 1024
        && rooted(text).parse::<http::uri::PathAndQuery>().is_ok()
        && !text.contains(['?', '#']);
    match fits {
        true => Ok(text),
        false => Err(FieldError::unexpected(
            field,
            text,
            "a path of up to 1024 characters, without query",
        )),
    }
}

fn rooted(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

fn said<'a, T>(field: &str, value: &'a Option<T>) -> Result<&'a T, FieldError> {
    let reason = "is missing: the type says that it is there";
    value.as_ref().ok_or_else(|| FieldError::new(field, reason))
}
