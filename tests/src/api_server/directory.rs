//! Follows the lab's directory of manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize as _;
use serde_json::Value;

use super::{
    resources::{self, RESOURCES},
    state::State,
    storage::Key,
    write::merge,
};

/// The objects of the directory's files, as they were read last.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug, Default)]
struct File {
    /// When, which inode, and how long: a file is replaced whole, and by another inode.
    changed: Option<(SystemTime, u64, u64)>,
    objects: BTreeMap<Key, Value>,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
        }
    }

    /// Looks for what changed. The result is to be applied at once; None if nothing did.
    ///
    /// A file that can't be read as YAML keeps the objects that it had.
    pub(super) fn look(&mut self) -> Option<Difference> {
        let before = self.objects();
        let mut changed = false;
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(&self.path).ok()?.flatten() {
            let path = entry.path();
            let is_yaml = path
                .extension()
                .is_some_and(|end| end == "yaml" || end == "yml");
            let Some(metadata) = entry.metadata().ok().filter(|_| is_yaml) else {
                continue;
            };
            seen.insert(path.clone());
            let modified = metadata.modified().ok();
            let signature = modified.map(|time| (time, metadata.ino(), metadata.len()));
            let file = self.files.entry(path.clone()).or_default();
            if file.changed == signature {
                continue;
            }
            file.changed = signature;
            if let Some(objects) = fs::read_to_string(&path).ok().and_then(|text| read(&text)) {
                file.objects = objects;
                changed = true;
            }
        }
        let known = self.files.len();
        self.files.retain(|path, _| seen.contains(path));
        (changed || known != self.files.len()).then(|| Difference {
            before,
            after: self.objects(),
        })
    }

    fn objects(&self) -> BTreeMap<Key, Value> {
        let all = self.files.values().flat_map(|file| file.objects.clone());
        all.collect()
    }
}

/// The objects of the directory before and after a change.
#[derive(Debug)]
pub(super) struct Difference {
    before: BTreeMap<Key, Value>,
    after: BTreeMap<Key, Value>,
}

impl Difference {
    /// What others wrote to an object stays, unless the manifest says otherwise.
    pub(super) fn apply(&self, state: &mut State) {
        for (key, wanted) in &self.after {
            let last = self.before.get(key);
            if last == Some(wanted) {
                continue;
            }
            let existing = state.storage.object(key);
            let mut object = existing.map_or(Value::Null, |object| (**object).clone());
            // Another life of the name: nothing of the former stays.
            let uid = &wanted["metadata"]["uid"];
            if !uid.is_null() && !object.is_null() && object["metadata"]["uid"] != *uid {
                state.storage.remove(key);
                object = Value::Null;
            }
            if let Some(last) = last {
                merge::remove_unwanted(&mut object, last, wanted);
            }
            merge::set(&mut object, wanted);
            state.storage.put(key, object);
        }
        for key in self.before.keys() {
            if !self.after.contains_key(key) {
                state.storage.remove(key);
            }
        }
    }
}

/// The objects of a file's text; None if one of its documents isn't YAML.
fn read(text: &str) -> Option<BTreeMap<Key, Value>> {
    let mut objects = BTreeMap::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let object = Value::deserialize(document).ok()?;
        if let Some(key) = key(&object) {
            objects.insert(key, object);
        }
    }
    Some(objects)
}

/// The key of an object of a kind that the server knows.
pub(super) fn key(object: &Value) -> Option<Key> {
    let resource = resources::of(object)?;
    let metadata = &object["metadata"];
    let namespace = match (
        RESOURCES[resource].namespaced,
        metadata["namespace"].as_str(),
    ) {
        (false, _) => "",
        (true, given) => given.unwrap_or("default"),
    };
    Some(Key {
        resource,
        namespace: namespace.into(),
        name: metadata["name"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifests, api_server::resources::by_path};

    fn manifest(name: &str, uid: &str, label: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  \
             uid: {uid}\n  labels: {{ {label} }}\n---\n"
        )
    }

    #[test]
    fn files_are_followed_and_what_others_wrote_stays() {
        let parent = tempfile::tempdir().unwrap();
        let manifests = Manifests::create(parent.path()).unwrap();
        let mut directory = Directory::new(manifests.directory());
        let mut state = State::default();
        let mut follow = |state: &mut State| {
            let difference = directory.look();
            difference.is_some_and(|difference| {
                difference.apply(state);
                true
            })
        };
        let key = |name: &str| Key {
            resource: by_path("", "v1", "pods").unwrap(),
            namespace: "shop".into(),
            name: name.into(),
        };
        let labels = |state: &State, name: &str| {
            let pod = state.storage.object(&key(name))?;
            Some(pod["metadata"]["labels"].to_string())
        };
        assert!(!follow(&mut state));
        let both = manifest("a", "1", "x: one") + &manifest("b", "2", "x: one");
        manifests.write("pods.yaml", &both).unwrap();
        assert!(follow(&mut state) && !follow(&mut state));
        assert_eq!(labels(&state, "b").as_deref(), Some(r#"{"x":"one"}"#));

        let mut pod = (**state.storage.object(&key("a")).unwrap()).clone();
        pod["metadata"]["labels"]["of-another"] = "1".into();
        state.storage.put(&key("a"), pod);
        manifests
            .write("pods.yaml", &manifest("a", "1", "y: second"))
            .unwrap();
        assert!(follow(&mut state));
        let kept = r#"{"of-another":"1","y":"second"}"#;
        assert_eq!(labels(&state, "a").as_deref(), Some(kept));
        assert_eq!(labels(&state, "b"), None);

        manifests.write("pods.yaml", "{ broken").unwrap();
        assert!(!follow(&mut state));
        assert_eq!(labels(&state, "a").as_deref(), Some(kept));
        manifests
            .write("pods.yaml", &manifest("a", "another", "z: new"))
            .unwrap();
        assert!(follow(&mut state));
        assert_eq!(labels(&state, "a").as_deref(), Some(r#"{"z":"new"}"#));
        manifests.remove("pods.yaml").unwrap();
        assert!(follow(&mut state));
        assert_eq!(labels(&state, "a"), None);
    }
}
