//! Times, tries and names.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::super::FieldError;
use crate::discovery::model::{Retry, Timeouts};

/// Tries after the first, if it isn't said.
const DEFAULT_ATTEMPTS: u32 = 2;
/// More would only add to the load of a service that fails.
const MAX_ATTEMPTS: u32 = 10;
/// Between tries, if it isn't said.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
const MAX_CODES: usize = 64;

/// `spec.rules[].timeouts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawTimeouts {
    request: Option<String>,
    backend_request: Option<String>,
}

/// `spec.rules[].retry`, of the API's experimental channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRetry {
    codes: Vec<i64>,
    attempts: Option<i64>,
    backoff: Option<String>,
}

impl RawTimeouts {
    /// Zero is no limit.
    pub(super) fn check(&self, field: &str) -> Result<Timeouts, FieldError> {
        let read = |key: &str, text: &Option<String>| -> Result<Option<Duration>, FieldError> {
            let Some(text) = text else { return Ok(None) };
            let duration = duration(format!("{field}.{key}"), text)?;
            Ok(Some(duration).filter(|it| !it.is_zero()))
        };
        let timeouts = Timeouts {
            request: read("request", &self.request)?,
            backend_request: read("backendRequest", &self.backend_request)?,
        };
        if let (Some(all), Some(one)) = (timeouts.request, timeouts.backend_request)
            && one > all
        {
            let reason = "is longer than timeouts.request, which it is a part of: shorten it";
            return Err(FieldError::new(format!("{field}.backendRequest"), reason));
        }
        Ok(timeouts)
    }
}

impl RawRetry {
    pub(super) fn check(
        &self,
        field: &str,
        issues: &mut Vec<FieldError>,
    ) -> Result<Retry, FieldError> {
        limited(&format!("{field}.codes"), &self.codes, MAX_CODES)?;
        let mut codes = Vec::with_capacity(self.codes.len());
        for (index, code) in self.codes.iter().enumerate() {
            let known = u16::try_from(*code)
                .ok()
                .filter(|it| (400..600).contains(it));
            let status = known.and_then(|code| StatusCode::from_u16(code).ok());
            codes.push(status.ok_or_else(|| {
                let field = format!("{field}.codes[{index}]");
                FieldError::unexpected(field, code, "a status from 400 to 599")
            })?);
        }
        codes.sort_unstable();
        codes.dedup();
        let attempts = match self.attempts {
            None => DEFAULT_ATTEMPTS,
            Some(attempts) => u32::try_from(attempts).map_err(|_| {
                let field = format!("{field}.attempts");
                FieldError::unexpected(field, attempts, "a number of tries, 0 to 10")
            })?,
        };
        if attempts > MAX_ATTEMPTS {
            issues.push(FieldError::new(
                format!("{field}.attempts"),
                format!("{attempts} counts as {MAX_ATTEMPTS}: more tries aren't made"),
            ));
        }
        Ok(Retry {
            codes,
            attempts: attempts.min(MAX_ATTEMPTS),
            backoff: match &self.backoff {
                None => DEFAULT_BACKOFF,
                Some(text) => duration(format!("{field}.backoff"), text)?,
            },
        })
    }
}

/// As the Gateway API writes durations: one to four numbers of up to five digits, each with `h`, `m`, `s` or
/// `ms`.
pub(in crate::discovery::reduce) fn duration(
    field: String,
    text: &str,
) -> Result<Duration, FieldError> {
    parse_duration(text).ok_or_else(|| {
        FieldError::unexpected(
            field,
            text,
            "a duration such as \"1h\", \"10s\" or \"1s500ms\"",
        )
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        let (milliseconds, after) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find_map(|(unit, factor)| Some((factor, rest[digits..].strip_prefix(unit)?)))?;
        sum += Duration::from_millis(number * milliseconds);
        if after.is_empty() {
            return Some(sum);
        }
        rest = after;
    }
    None
}

pub(in crate::discovery::reduce) fn header_name(
    field: &str,
    name: &str,
) -> Result<HeaderName, FieldError> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| FieldError::unexpected(field, name, "a header's name"))
}

pub(in crate::discovery::reduce) fn header_value(
    field: &str,
    value: &str,
) -> Result<HeaderValue, FieldError> {
    HeaderValue::from_str(value)
        .map_err(|_| FieldError::unexpected(field, value.escape_debug(), "a header's value"))
}

/// No more than the API allows.
pub(in crate::discovery::reduce) fn limited<T>(
    field: &str,
    list: &[T],
    most: usize,
) -> Result<(), FieldError> {
    match list.len() <= most {
        true => Ok(()),
        false => Err(FieldError::new(
            field,
            format!("there are {}: {most} are allowed", list.len()),
        )),
    }
}
