//! The objects, their versions, and what was changed.

mod ownership;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{managed_fields, resources::RESOURCES};

/// How many changes are remembered, so that a watch can go on from where another ended.
const REMEMBERED: usize = 100_000;
/// The version of a new cluster: not a number that a client could have guessed.
const FIRST: u64 = 1000;

/// Names an object. The order is that of lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// A place in [`RESOURCES`].
    pub(super) resource: usize,
    /// Empty if the kind has none.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A change of one object: made (no before), modified, or deleted (no after).
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// All objects, as etcd has them: a version rises with each change of any object.
#[derive(Debug)]
pub(super) struct Storage {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: VecDeque<Change>,
    revision: u64,
    /// What was before this version is forgotten.
    compacted: u64,
    /// Makes uids.
    made: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            changes: VecDeque::new(),
            revision: FIRST,
            compacted: FIRST,
            made: 0,
        }
    }
}

impl Storage {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn object(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects of a kind in a namespace, or in all if it is empty.
    pub(super) fn objects<'a>(
        &'a self,
        resource: usize,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let from = Key {
            resource,
            namespace: namespace.into(),
            name: String::new(),
        };
        self.objects.range(from..).take_while(move |(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    /// The same as they were at a version, if that is remembered.
    pub(super) fn objects_at(
        &self,
        revision: u64,
        resource: usize,
        namespace: &str,
    ) -> Option<BTreeMap<Key, Arc<Value>>> {
        if revision < self.compacted {
            return None;
        }
        let now = self.objects(resource, namespace);
        let mut then: BTreeMap<_, _> = now.map(|(k, v)| (k.clone(), Arc::clone(v))).collect();
        let later = self.changes.iter().rev();
        for change in later.take_while(|change| change.revision > revision) {
            let key = &change.key;
            if key.resource != resource || !(namespace.is_empty() || key.namespace == namespace) {
                continue;
            }
            match &change.before {
                Some(before) => then.insert(key.clone(), Arc::clone(before)),
                None => then.remove(key),
            };
        }
        Some(then)
    }

    /// The changes after a version; None if some of them are forgotten.
    pub(super) fn changes_after(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        let first = self
            .changes
            .partition_point(|change| change.revision <= revision);
        (revision >= self.compacted).then(|| self.changes.range(first..))
    }

    /// Forgets all changes, and that the version now was ever told: nobody can go on from it.
    pub(super) fn forget(&mut self) {
        self.revision += 1;
        self.compacted = self.revision;
        self.changes.clear();
    }

    /// Creates or replaces an object, with the metadata that only the server writes.
    ///
    /// One that is as before keeps its version.
    pub(super) fn put(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        remove_nulls(&mut object);
        let before = self.objects.get(key).cloned();
        let resource = &RESOURCES[key.resource];
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        let mut metadata = object["metadata"].take();
        metadata["name"] = json!(key.name);
        if resource.namespaced {
            metadata["namespace"] = json!(key.namespace);
        }
        let had = |field: &str| before.as_ref().and_then(|it| it["metadata"].get(field));
        let uid = had("uid").or(metadata.get("uid")).cloned();
        metadata["uid"] = uid.unwrap_or_else(|| self.new_uid());
        let created = had("creationTimestamp").cloned();
        metadata["creationTimestamp"] = created.unwrap_or_else(|| json!(now()));
        for field in ["resourceVersion", "managedFields", "generation"] {
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.remove(field);
            }
            if let Some(value) = had(field) {
                metadata[field] = value.clone();
            }
        }
        object["metadata"] = metadata;
        if let Some(before) = &before
            && **before == object
        {
            return Arc::clone(before);
        }
        if resource.has_generation() {
            let last = before
                .as_ref()
                .map(|before| (generation(before), specified(before) == specified(&object)));
            object["metadata"]["generation"] = match last {
                Some((generation, true)) => json!(generation),
                Some((generation, false)) => json!(generation + 1),
                None => json!(1),
            };
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        object["metadata"]["managedFields"] = managed_fields::of(&object);
        let after = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&after));
        self.remember(key, before, Some(Arc::clone(&after)));
        after
    }

    /// Removes an object, and what it alone owned. False if there was none.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(before) = self.objects.remove(key) else {
            return false;
        };
        self.revision += 1;
        let uid = before["metadata"]["uid"].clone();
        self.remember(key, Some(before), None);
        for owned in ownership::orphans(&self.objects, &uid) {
            self.remove(&owned);
        }
        true
    }

    /// Removes an object all of whose owners are gone.
    pub(super) fn remove_orphan(&mut self, key: &Key) {
        if ownership::is_orphan(&self.objects, key) {
            self.remove(key);
        }
    }

    fn remember(&mut self, key: &Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.changes.push_back(Change {
            revision: self.revision,
            key: key.clone(),
            before,
            after,
        });
        if self.changes.len() > REMEMBERED
            && let Some(forgotten) = self.changes.pop_front()
        {
            self.compacted = forgotten.revision;
        }
    }

    fn new_uid(&mut self) -> Value {
        self.made += 1;
        json!(format!("5a1ab000-0000-4000-8000-{:012x}", self.made))
    }
}

/// The time, as Kubernetes writes it: whole seconds, UTC.
pub(super) fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(1)
}

/// All but metadata and status.
fn specified(object: &Value) -> Value {
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("metadata");
        fields.remove("status");
    }
    rest
}

/// Kubernetes keeps no nulls: to it they are fields that aren't there.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
