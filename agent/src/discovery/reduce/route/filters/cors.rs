//! Whom a rule lets browsers show its answers.

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::super::{
    matches::method,
    values::{header_name, limited},
};
use crate::discovery::{
    model::{AllowedOrigins, Cors, Listed, Origin},
    reduce::FieldError,
};

const MAX_ENTRIES: usize = 64;
/// In seconds, if it isn't said.
const DEFAULT_MAX_AGE: u32 = 5;
const ANY: &str = "*";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawCors {
    allow_origins: Vec<String>,
    allow_credentials: bool,
    allow_methods: Vec<String>,
    allow_headers: Vec<String>,
    expose_headers: Vec<String>,
    max_age: Option<i64>,
}

impl RawCors {
    pub(super) fn check(&self, field: &str) -> Result<Cors, FieldError> {
        let max_age = match self.max_age {
            None => DEFAULT_MAX_AGE,
            Some(seconds) => {
                let fits = u32::try_from(seconds).ok().filter(|it| *it > 0);
                fits.ok_or_else(|| {
                    let field = format!("{field}.maxAge");
                    FieldError::unexpected(field, seconds, "a number of seconds, from 1")
                })?
            }
        };
        Ok(Cors {
            origins: origins(&format!("{field}.allowOrigins"), &self.allow_origins)?,
            credentials: self.allow_credentials,
            methods: methods(&format!("{field}.allowMethods"), &self.allow_methods)?,
            headers: headers(&format!("{field}.allowHeaders"), &self.allow_headers)?,
            expose: headers(&format!("{field}.exposeHeaders"), &self.expose_headers)?,
            max_age,
        })
    }
}

fn origins(field: &str, raw: &[String]) -> Result<AllowedOrigins, FieldError> {
    limited(field, raw, MAX_ENTRIES)?;
    if raw.iter().any(|it| it == ANY) {
        return Ok(AllowedOrigins::Any);
    }
    let origins = raw.iter().enumerate().map(|(index, text)| {
        origin(text).ok_or_else(|| {
            let expected = "\"*\" or an origin such as \"https://shop.example.com\", \
                            \"https://*.example.com\" or \"http://localhost:8080\"";
            FieldError::unexpected(format!("{field}[{index}]"), text, expected)
        })
    });
    Ok(AllowedOrigins::These(origins.collect::<Result<_, _>>()?))
}

fn origin(text: &str) -> Option<Origin> {
    let (wildcard, plain) = match text.split_once("://*") {
        Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
        None => (false, text.to_owned()),
    };
    // A `*` alone leaves no host for the parser of origins.
    if wildcard && (plain.ends_with("://") || plain.contains("://:")) {
        let (scheme, port) = plain.split_once("://")?;
        let probe = Origin::parse(&format!("{scheme}://any{port}"))?;
        return Some(Origin {
            host: "".into(),
            is_suffix: true,
            ..probe
        });
    }
    let origin = Origin::parse(&plain)?;
    let fits = !origin.host.contains('*') && (!wildcard || origin.host.starts_with('.'));
    fits.then_some(Origin {
        is_suffix: wildcard,
        ..origin
    })
}

fn methods(field: &str, raw: &[String]) -> Result<Listed<Method>, FieldError> {
    listed(field, raw, method)
}

fn headers(field: &str, raw: &[String]) -> Result<Listed<HeaderName>, FieldError> {
    listed(field, raw, header_name)
}

fn listed<T: AsRef<str>>(
    field: &str,
    raw: &[String],
    check: impl Fn(&str, &str) -> Result<T, FieldError>,
) -> Result<Listed<T>, FieldError> {
    limited(field, raw, MAX_ENTRIES)?;
    if raw.iter().any(|it| it == ANY) {
        return Ok(Listed::Any);
    }
    let all = raw.iter().enumerate();
    let all = all.map(|(index, text)| check(&format!("{field}[{index}]"), text));
    let all: Vec<T> = all.collect::<Result<_, _>>()?;
    // As it was written: header names may be in any case.
    let text = HeaderValue::from_str(&raw.join(", ")).map_err(|_| {
        FieldError::new(
            field,
            "can't be written into a header: remove what isn't ASCII",
        )
    })?;
    Ok(Listed::These { all, text })
}
