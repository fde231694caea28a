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
    let living: BTreeSet<&str> = objects
        .values()
        .filter_map(|object| object["metadata"]["uid"].as_str())
        .collect();
    let is_living = |owner: &Value| owner.as_str().is_some_and(|uid| living.contains(uid));
    owned
        .into_iter()
        .filter(|(_, object)| !owners(object).any(is_living))
        .map(|(key, _)| key.clone())
        .collect()
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .map(|reference| &reference["uid"])
}
