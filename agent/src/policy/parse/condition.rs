//! `when[]`: a key that says how its values are to be read.

use serde::Deserialize;

use super::values::{AccountName, Fields, List, Principal, Readable, Text};
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
    Http(String),
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

/// What these keys begin with is seen by waypoints only: Istio's reference of conditions.
const HTTP_PREFIXES: [&str; 3] = ["request.", "connection.", "experimental."];

impl TryFrom<Fields<ConditionFields>> for When {
    type Error = String;

    fn try_from(Fields(fields): Fields<ConditionFields>) -> Result<Self, String> {
        if fields.values.is_empty() && fields.not_values.is_empty() {
            return Err("a condition without values: write values or notValues".to_owned());
        }
        let key = &*fields.key.0;
        Ok(Self::Plain(match key {
            "source.ip" | "remote.ip" => Condition::SourceAddress(read(fields)?),
            "source.namespace" => Condition::SourceNamespace(read(fields)?),
            "source.principal" => Condition::SourcePrincipal(read_principals(fields)?),
            "source.serviceAccount" => return read(fields).map(Self::ServiceAccount),
            "destination.ip" => Condition::DestinationAddress(read(fields)?),
            "destination.port" => Condition::DestinationPort(read(fields)?),
            http if HTTP_PREFIXES.iter().any(|prefix| http.starts_with(prefix)) => {
                return Ok(Self::Http(fields.key.0));
            }
            unknown => {
                return Err(format!(
                    "unknown key {unknown:?}: write source.ip, remote.ip, source.namespace, \
                     source.principal, source.serviceAccount, destination.ip, destination.port, \
                     or one that begins with {}",
                    HTTP_PREFIXES.join(" or ")
                ));
            }
        }))
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
