//! Creating, changing and deleting objects.

mod address;
pub(super) mod merge;
mod validate;

use serde_json::{Value, json};

use super::{
    refusal::Refusal,
    request::Call,
    resources::Resource,
    state::State,
    storage::{Key, now},
};

/// The media types of patches.
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// An answer: status code and object.
pub(super) type Written = Result<(u16, Value), Refusal>;

pub(super) fn create(state: &mut State, call: &Call, mut object: Value) -> Written {
    let of = call.resource();
    if object["metadata"]["name"].is_null()
        && let Some(prefix) = object["metadata"]["generateName"].as_str()
    {
        let name = format!("{prefix}{:05x}", state.storage.revision());
        object["metadata"]["name"] = json!(name);
    }
    validate::head(of, call, &object)?;
    let key = key(call, &object["metadata"]["name"]);
    if !object["metadata"]["resourceVersion"].is_null() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::plain(500, "InternalError", message));
    }
    if of.namespaced && !state.has_namespace(&key.namespace) {
        let message = format!("namespaces {:?} not found", key.namespace);
        return Err(Refusal::plain(404, "NotFound", message));
    }
    if state.storage.object(&key).is_some() {
        return Err(Refusal::already_exists(of, &key.name));
    }
    if of.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "generation",
        ] {
            metadata.remove(field);
        }
    }
    place(&mut object, call);
    let mut object = validate::object(of, &key.name, &object)?;
    if of.kind == "Service" {
        address::assign(state, &mut object);
    }
    let object = (*state.storage.put(&key, object)).clone();
    // What belongs to somebody who has gone already goes too.
    state.storage.remove_orphan(&key);
    Ok((201, object))
}

pub(super) fn exists(state: &State, call: &Call) -> bool {
    state
        .storage
        .object(&key(call, &json!(call.name)))
        .is_some()
}

/// Replaces an object, or its status.
pub(super) fn update(state: &mut State, call: &Call, object: Value) -> Written {
    let of = call.resource();
    validate::head(of, call, &object)?;
    let key = key(call, &json!(call.name));
    let Some(before) = state.storage.object(&key) else {
        return Err(Refusal::not_found(of, &key.name));
    };
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    if version.is_empty() && !of.updates_unconditionally() {
        let must = (
            "FieldValueInvalid",
            "metadata.resourceVersion",
            "Invalid value: 0x0: must be specified for an update",
        );
        return Err(Refusal::invalid(of, &key.name, &[must]));
    }
    let before = (**before).clone();
    replace(state, call, &key, &before, object)
}

pub(super) fn patch(state: &mut State, call: &Call, media: &str, body: &[u8]) -> Written {
    let of = call.resource();
    let key = key(call, &json!(call.name));
    let before = state.storage.object(&key).map(|object| (**object).clone());
    match media {
        APPLY => return apply(state, call, &key, before, body),
        MERGE => {}
        STRATEGIC if !of.is_custom() => {}
        other => {
            let accepted = format!("{MERGE}, {APPLY}");
            return Err(Refusal::media_type(other, &accepted));
        }
    }
    let before = before.ok_or_else(|| Refusal::not_found(of, &key.name))?;
    let patch = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    let mut object = before.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // Only a patch that names a version is held to it.
        metadata.remove("resourceVersion");
    }
    merge::patch(&mut object, &patch);
    replace(state, call, &key, &before, object)
}

pub(super) fn delete(state: &mut State, call: &Call, options: &Value) -> Written {
    let of = call.resource();
    let key = key(call, &json!(call.name));
    let Some(object) = state.storage.object(&key) else {
        return Err(Refusal::not_found(of, &key.name));
    };
    let mut object = (**object).clone();
    let has = object["metadata"].clone();
    let asked = &options["preconditions"];
    if let Some(uid) = asked["uid"].as_str()
        && has["uid"] != uid
    {
        let has = has["uid"].as_str().unwrap_or_default();
        return Err(Refusal::other_uid(of, &key.name, uid, has));
    }
    if let Some(version) = asked["resourceVersion"].as_str()
        && has["resourceVersion"] != version
    {
        return Err(Refusal::conflict(of, &key.name));
    }
    if has_finalizers(&object) {
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(now());
            object = (*state.storage.put(&key, object)).clone();
        }
        return Ok((200, object));
    }
    state.storage.remove(&key);
    let mut details = json!({ "name": key.name, "kind": of.plural, "uid": has["uid"] });
    if !of.group.is_empty() {
        details["group"] = json!(of.group);
    }
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    });
    Ok((200, status))
}

/// Deletes all that a list would show.
pub(super) fn delete_all(state: &mut State, call: &Call) -> Written {
    let list = super::list::list(state, call)?;
    for item in list["items"].as_array().into_iter().flatten() {
        let mut one = call.clone();
        let text = |field: &str| {
            item["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        one.name = text("name");
        one.namespace = text("namespace");
        delete(state, &one, &Value::Null)?;
    }
    Ok((200, list))
}

/// Server-side apply: what is in the body is set, and what the same manager had set before goes, unless another has
/// applied it too. Two that want a field to be different are in conflict. Those who don't apply, but update or patch,
/// aren't managers here: what they set stays until somebody applies it.
fn apply(state: &mut State, call: &Call, key: &Key, before: Option<Value>, body: &[u8]) -> Written {
    let of = call.resource();
    let wanted: Value = serde_norway::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    let manager = call.query.text("fieldManager");
    if manager.is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                       required for apply patch";
        return Err(Refusal::plain(422, "Invalid", message));
    }
    if wanted["apiVersion"].is_null() || wanted["kind"].is_null() {
        return Err(Refusal::bad_request(
            "apiVersion and kind must be set in an apply patch",
        ));
    }
    if !wanted["metadata"]["managedFields"].is_null() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    validate::head(of, call, &wanted)?;
    let by = (key.clone(), format!("{manager}/{}", call.status));
    let mut kept = wanted.clone();
    if let Some(metadata) = kept["metadata"].as_object_mut() {
        // They are conditions of this request.
        metadata.remove("uid");
        metadata.remove("resourceVersion");
    }
    let Some(before) = before else {
        if call.status {
            return Err(Refusal::not_found(of, &key.name));
        }
        if let Some(uid) = wanted["metadata"]["uid"].as_str() {
            return Err(Refusal::other_uid(of, &key.name, uid, ""));
        }
        let mut object = wanted.clone();
        object["metadata"]["name"] = json!(key.name);
        state.applied.retain(|(of, _), _| of != key);
        let created = create(state, call, object)?;
        state.applied.insert(by, kept);
        return Ok(created);
    };
    let mut object = before.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    let mut others: Vec<_> = state
        .applied
        .iter()
        .filter(|(other, _)| other.0 == *key && **other != by)
        .map(|(other, applied)| (other.clone(), applied.clone()))
        .collect();
    let mut still_wanted = kept.clone();
    for ((_, other), applied) in &mut others {
        let lost = merge::contest(applied, &kept);
        if !lost.is_empty() && !call.query.is_true("force") {
            return Err(Refusal::manager_conflict(of, &key.name, other, &lost));
        }
        merge::set(&mut still_wanted, applied);
    }
    if let Some(last) = state.applied.get(&by) {
        merge::remove_unwanted(&mut object, last, &still_wanted);
    }
    merge::set(&mut object, &wanted);
    let written = replace(state, call, key, &before, object)?;
    state.applied.extend(others);
    state.applied.insert(by, kept);
    Ok(written)
}

/// Puts an object in the place of another, as far as the request may.
fn replace(
    state: &mut State,
    call: &Call,
    key: &Key,
    before: &Value,
    mut object: Value,
) -> Written {
    let of = call.resource();
    let (has, asked) = (&before["metadata"], object["metadata"].clone());
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    let (version, uid) = (text("resourceVersion"), text("uid"));
    if !version.is_empty() && has["resourceVersion"] != version.as_str() {
        return Err(Refusal::conflict(of, &key.name));
    }
    if !uid.is_empty() && has["uid"] != uid.as_str() {
        let has = has["uid"].as_str().unwrap_or_default();
        return Err(Refusal::other_uid(of, &key.name, &uid, has));
    }
    place(&mut object, call);
    object = validate::object(of, &key.name, &object)?;
    if call.status {
        let status = object["status"].take();
        let metadata = object["metadata"].take();
        object = before.clone();
        object["status"] = status;
        if !of.is_custom() {
            // As Kubernetes does it: labels and annotations too may be written there.
            object["metadata"] = metadata;
        }
    } else if of.status {
        object["status"] = before["status"].clone();
        if of.kind == "Pod" {
            validate::unchanged_spec(of, before, &object)?;
        }
    }
    object["metadata"]["deletionTimestamp"] = before["metadata"]["deletionTimestamp"].clone();
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    let object = state.storage.put(key, object);
    if deleted && !has_finalizers(&object) {
        state.storage.remove(key);
    }
    Ok((200, (*object).clone()))
}

/// An object that doesn't say its namespace is in that of the path.
fn place(object: &mut Value, call: &Call) {
    if call.resource().namespaced {
        object["metadata"]["namespace"] = json!(call.namespace);
    }
}

fn key(call: &Call, name: &Value) -> Key {
    Key {
        resource: call.index,
        namespace: call.namespace.clone(),
        name: name.as_str().unwrap_or_default().into(),
    }
}

fn has_finalizers(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

/// The object of a body: JSON, as clients send it.
pub(super) fn read(of: &Resource, body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            of.kind, of.version, of.kind
        ))
    })
}
