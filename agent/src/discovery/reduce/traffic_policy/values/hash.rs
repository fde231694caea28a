//! What a consistent hash is made from.

use serde::Deserialize;

use super::{DAY, SECOND, time};
use crate::discovery::{
    model::{HashCookie, HashKey},
    reduce::{FieldError, route::values::header_name},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawConsistentHash {
    header: Option<String>,
    cookie: Option<RawCookie>,
    source_address: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCookie {
    name: String,
    ttl: Option<String>,
    path: Option<String>,
}

impl RawConsistentHash {
    pub(super) fn check(&self, field: &str) -> Result<HashKey, FieldError> {
        let source = self.source_address == Some(true);
        match (&self.header, &self.cookie, source) {
            (Some(header), None, false) => {
                header_name(&format!("{field}.header"), header).map(HashKey::Header)
            }
            (None, Some(cookie), false) => cookie
                .check(&format!("{field}.cookie"))
                .map(HashKey::Cookie),
            (None, None, true) => Ok(HashKey::SourceAddress),
            _ => {
                let reason = "must have one of header, cookie and sourceAddress: true";
                Err(FieldError::new(field, reason))
            }
        }
    }
}

impl RawCookie {
    fn check(&self, field: &str) -> Result<HashCookie, FieldError> {
        // A cookie's name is a token, which is what a header's is too.
        header_name(&format!("{field}.name"), &self.name)?;
        let path = self.path.as_deref().unwrap_or("/");
        let may_be = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !path.starts_with('/') || path.len() > 256 || !path.bytes().all(may_be) {
            let expected = "a path: \"/\", then up to 255 characters of ASCII other than \";\"";
            let field = format!("{field}.path");
            return Err(FieldError::unexpected(field, path.escape_debug(), expected));
        }
        let ttl = |text: &String| {
            let bounds = SECOND..=DAY * 365;
            time(&format!("{field}.ttl"), Some(text), SECOND, bounds)
        };
        Ok(HashCookie {
            name: self.name.as_str().into(),
            ttl: self.ttl.as_ref().map(ttl).transpose()?,
            path: path.into(),
        })
    }
}
