//! What Kubernetes' garbage collector does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::Key;

/// The objects that were owned by `gone`, and by nothing that is still there.
pub(super) fn orphans(objects: &BTreeMap<Key, Arc<Value>>, gone: &Value) -> Vec<Key> {
    let owned = objects
        .iter()
        .filter(|(_, object)| owners(object).any(|owner| owner == gone));
    let owned: Vec<_> = owned.collect();
    if owned.is_empty() {
        return Vec::new();
    }
    let living = living(objects);
    owned
        .into_iter()
        .filter(|(_, object)| !has_owner(object, &living))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Whether an object is owned, but by nothing that is there.
pub(super) fn is_orphan(objects: &BTreeMap<Key, Arc<Value>>, key: &Key) -> bool {
    let owned = objects.get(key).filter(|it| owners(it).next().is_some());
    owned.is_some_and(|object| !has_owner(object, &living(objects)))
}

/// The uids of all objects.
fn living(objects: &BTreeMap<Key, Arc<Value>>) -> BTreeSet<&str> {
    let uids = objects.values().map(|object| &object["metadata"]["uid"]);
    uids.filter_map(Value::as_str).collect()
}

fn has_owner(object: &Value, living: &BTreeSet<&str>) -> bool {
    owners(object).any(|owner| owner.as_str().is_some_and(|uid| living.contains(uid)))
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .map(|reference| &reference["uid"])
}
