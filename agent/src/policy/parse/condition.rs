//! `when[]`: a key that says how its values are to be read.

use http::HeaderName;
use serde::Deserialize;

use super::{
    http::in_brackets,
    values::{AccountName, Fields, List, Principal, Readable, Text},
};
use crate::policy::model::{Condition, Criteria, Pattern};

/// A condition whose values fit its key.
#[derive(Deserialize)]
#[serde(try_from = "Fields<ConditionFields>")]
pub(super) enum When {
    /// Complete as it is.
    Plain(Condition),
    /// Waits for the policy's namespace.
    ServiceAccount(Criteria<AccountName>),
    /// This key, which only HTTP can decide.
    Http(String, Condition),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ConditionFields {
    key: Text<String>,
    #[serde(default)]
    values: List<Text<String>>,
    #[serde(default)]
    not_values: List<Text<String>>,
}

/// The keys that are known, for whoever wrote another.
const KEYS: &str = "source.ip, remote.ip, source.namespace, source.principal, \
    source.serviceAccount, destination.ip, destination.port, request.headers[NAME], \
    request.auth.principal, request.auth.audiences, request.auth.presenter, \
    request.auth.claims[NAME] or connection.sni";

impl TryFrom<Fields<ConditionFields>> for When {
    type Error = String;

    fn try_from(Fields(fields): Fields<ConditionFields>) -> Result<Self, String> {
        if fields.values.is_empty() && fields.not_values.is_empty() {
            return Err("a condition without values: write values or notValues".to_owned());
        }
        let key = fields.key.0.clone();
        Ok(Self::Plain(match &*key {
            "source.ip" => Condition::SourceAddress(read(fields)?),
            "remote.ip" => Condition::RemoteAddress(read(fields)?),
            "source.namespace" => Condition::SourceNamespace(read(fields)?),
            "source.principal" => Condition::SourcePrincipal(read_principals(fields)?),
            "source.serviceAccount" => return read(fields).map(Self::ServiceAccount),
            "destination.ip" => Condition::DestinationAddress(read(fields)?),
            "destination.port" => Condition::DestinationPort(read(fields)?),
            _ => {
                let condition = http(&key, fields)?;
                return Ok(Self::Http(key, condition));
            }
        }))
    }
}

/// What only HTTP can decide: Istio's reference of conditions.
fn http(key: &str, fields: ConditionFields) -> Result<Condition, String> {
    let unknown = || format!("unknown key {key:?}: write {KEYS}");
    if let Some(name) = key.strip_prefix("request.headers") {
        let names = in_brackets(name).ok_or_else(unknown)?;
        let [name] = &names[..] else {
            return Err(unknown());
        };
        return Ok(Condition::Header(
            HeaderName::read(name)?,
            read_texts(fields)?,
        ));
    }
    if let Some(names) = key.strip_prefix("request.auth.claims") {
        let path = in_brackets(names).ok_or_else(unknown)?;
        return Ok(Condition::RequestClaim(path, read_texts(fields)?));
    }
    match key {
        "request.auth.principal" => Ok(Condition::RequestPrincipal(read(fields)?)),
        "request.auth.audiences" => Ok(Condition::RequestAudience(read(fields)?)),
        "request.auth.presenter" => Ok(Condition::RequestPresenter(read(fields)?)),
        "connection.sni" => Ok(Condition::Unseen),
        _ if key.starts_with("experimental.") => Ok(Condition::Unseen),
        _ => Err(unknown()),
    }
}

fn read<T: Readable>(fields: ConditionFields) -> Result<Criteria<T>, String> {
    let list = |name: &str, list: List<Text<String>>| {
        list.values()
            .iter()
            .enumerate()
            .map(|(index, text)| T::read(text).map_err(|e| format!("{name}[{index}]: {e}")))
            .collect::<Result<Vec<T>, _>>()
    };
    Ok(Criteria {
        any_of: list("values", fields.values)?,
        none_of: list("notValues", fields.not_values)?,
    })
}

fn read_principals(fields: ConditionFields) -> Result<Criteria<Pattern>, String> {
    read(fields).map(|principals| principals.map(|Principal(pattern)| pattern))
}

/// Patterns in which white space may stand, as it may in headers and claims.
fn read_texts(fields: ConditionFields) -> Result<Criteria<Pattern>, String> {
    read(fields).map(|texts| texts.map(|FreeText(pattern)| pattern))
}

struct FreeText(Pattern);

impl Readable for FreeText {
    const EXPECTED: &'static str = Pattern::EXPECTED;

    fn read(text: &str) -> Result<Self, String> {
        let inner = text.trim_matches(' ');
        if inner.len() != text.len() || text.contains(|c: char| c.is_control()) {
            return Err(format!(
                "{text:?} would never match: take the white space at its ends out"
            ));
        }
        Pattern::of(text).map(Self)
    }
}
