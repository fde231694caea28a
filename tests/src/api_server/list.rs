//! Lists, whole or in pages.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    refusal::Refusal, request::Call, resources::Resource, selector::Selector, state::State,
    storage::Key,
};

/// Where the next page begins: after a key, in the objects of a version.
#[derive(Debug, PartialEq)]
struct Continue {
    revision: u64,
    namespace: String,
    name: String,
}

pub(super) fn list(state: &State, call: &Call) -> Result<Value, Refusal> {
    let of = call.resource();
    let selector = Selector::parse(&call.query, of)?;
    let version = call.query.number("resourceVersion")?;
    let token = call.query.text("continue");
    let revision = revision(state, call, version, token)?;
    let mut objects = state
        .storage
        .objects_at(revision, call.index, &call.namespace)
        .ok_or_else(|| expired(token))?;
    if !token.is_empty() {
        let after = Continue::parse(token)?;
        let last = Key {
            resource: call.index,
            namespace: after.namespace,
            // No name has a NUL, so this is right behind the name.
            name: after.name + "\0",
        };
        objects = objects.split_off(&last);
    }
    // What is served from memory, which version 0 allows, is never paged.
    let limit = match (call.query.number("limit")?, version) {
        (None | Some(0), _) | (_, Some(0)) => usize::MAX,
        (Some(limit), _) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    Ok(page(of, &objects, &selector, revision, limit))
}

pub(super) fn one(state: &State, call: &Call) -> Result<Value, Refusal> {
    let key = Key {
        resource: call.index,
        namespace: call.namespace.clone(),
        name: call.name.clone(),
    };
    let object = state.storage.object(&key);
    object
        .map(|object| (**object).clone())
        .ok_or_else(|| Refusal::not_found(call.resource(), &call.name))
}

/// The version whose objects are listed.
fn revision(state: &State, call: &Call, version: Option<u64>, token: &str) -> Result<u64, Refusal> {
    let now = state.storage.revision();
    let matching = call.query.text("resourceVersionMatch");
    match (version, token) {
        (Some(1..), token) if !token.is_empty() => Err(Refusal::bad_request(
            "specifying resource version is not allowed when using continue",
        )),
        (_, token) if !token.is_empty() => Ok(Continue::parse(token)?.revision),
        (None, _) if !matching.is_empty() => Err(Refusal::bad_request(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some(version), _) if version > now => Err(too_large(version, now)),
        (Some(version), _) if matching == "Exact" => Ok(version),
        _ => Ok(now),
    }
}

fn page(
    of: &Resource,
    objects: &BTreeMap<Key, Arc<Value>>,
    selector: &Selector,
    revision: u64,
    limit: usize,
) -> Value {
    let mut selected = objects
        .iter()
        .filter(|(_, object)| selector.matches(object));
    let mut last = None;
    let items: Vec<Value> = selected
        .by_ref()
        .take(limit)
        .map(|(key, object)| {
            last = Some(key);
            item(of, object)
        })
        .collect();
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    let remaining = selected.count();
    if let (Some(last), 1..) = (last, remaining) {
        metadata["remainingItemCount"] = json!(remaining);
        metadata["continue"] = json!(Continue::after(revision, last).text());
    }
    json!({
        "kind": format!("{}List", of.kind),
        "apiVersion": of.api_version(),
        "metadata": metadata,
        "items": items,
    })
}

/// Kubernetes' own kinds don't say what they are in a list; those of CRDs do.
fn item(of: &Resource, object: &Value) -> Value {
    let mut item = object.clone();
    if let (false, Some(fields)) = (of.is_custom(), item.as_object_mut()) {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

fn expired(token: &str) -> Refusal {
    Refusal::expired(if token.is_empty() {
        "The resourceVersion for the provided list is too old."
    } else {
        "The provided continue parameter is too old to display a consistent list result. You \
         must start a new list without the continue parameter."
    })
}

/// A version that isn't there yet, for example because another cluster's was meant.
pub(super) fn too_large(version: u64, now: u64) -> Refusal {
    let message = format!("Too large resource version: {version}, current: {now}");
    let mut refusal = Refusal::plain(504, "Timeout", message);
    if let Refusal::Status { details, .. } = &mut refusal {
        *details = json!({
            "causes": [{
                "reason": "ResourceVersionTooLarge",
                "message": "Too large resource version",
            }],
            "retryAfterSeconds": 1,
        });
    }
    refusal
}

impl Continue {
    fn after(revision: u64, key: &Key) -> Self {
        Self {
            revision,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }

    /// Not to be read by clients.
    fn text(&self) -> String {
        let plain = format!("{}/{}/{}", self.revision, self.namespace, self.name);
        plain.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        let plain = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        plain
            .and_then(|plain| {
                let mut parts = plain.splitn(3, '/');
                Some(Self {
                    revision: parts.next()?.parse().ok()?,
                    namespace: parts.next()?.into(),
                    name: parts.next()?.into(),
                })
            })
            .ok_or_else(|| {
                Refusal::bad_request("continue key is not valid: it isn't this server's")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written_and_others_are_refused() {
        let token = Continue {
            revision: 7,
            namespace: String::new(),
            name: "web-0".into(),
        };
        assert_eq!(Continue::parse(&token.text()), Ok(token));
        for wrong in ["7", "zz", "37", "é"] {
            assert_eq!(Continue::parse(wrong).unwrap_err().code(), 400, "{wrong}");
        }
    }
}
