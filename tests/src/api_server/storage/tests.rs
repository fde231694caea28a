use super::*;

fn key(name: &str) -> Key {
    Key {
        resource: crate::api_server::resources::by_path("", "v1", "configmaps").unwrap(),
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
    version.parse().unwrap()
}

#[test]
fn versions_rise_with_every_change_and_with_nothing_else() {
    let mut storage = Storage::default();
    let first = storage.put(&key("a"), json!({ "data": { "x": "1" } }));
    let other = storage.put(&key("b"), json!({}));
    assert_eq!(version(&other), version(&first) + 1);
    let same = storage.put(&key("a"), json!({ "data": { "x": "1", "y": null } }));
    assert_eq!(same, first);
    let changed = storage.put(&key("a"), json!({ "data": { "x": "2" } }));
    assert_eq!(version(&changed), version(&first) + 2);
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(
            changed["metadata"][field], first["metadata"][field],
            "{field}"
        );
    }
    assert!(changed["metadata"]["managedFields"].is_array());
}

#[test]
fn what_was_is_known_until_it_is_forgotten() {
    let mut storage = Storage::default();
    let kind = key("a").resource;
    let names = |storage: &Storage, revision| -> Option<Vec<String>> {
        let then = storage.objects_at(revision, kind, "shop")?;
        Some(then.into_keys().map(|key| key.name).collect())
    };
    let empty = storage.revision();
    storage.put(&key("a"), json!({}));
    storage.put(&key("b"), json!({}));
    let both = storage.revision();
    assert!(storage.remove(&key("a")));
    assert!(!storage.remove(&key("a")));
    assert_eq!(names(&storage, empty), Some(vec![]));
    assert_eq!(names(&storage, both), Some(vec!["a".into(), "b".into()]));
    assert_eq!(names(&storage, storage.revision()), Some(vec!["b".into()]));
    assert_eq!(storage.changes_after(both).unwrap().count(), 1);
    let last = storage.revision();
    storage.forget();
    assert_eq!(names(&storage, last), None);
    assert!(storage.changes_after(last).is_none());
    assert_eq!(names(&storage, storage.revision()), Some(vec!["b".into()]));
}

#[test]
fn the_owned_go_with_the_last_of_their_owners() {
    let mut storage = Storage::default();
    let mut uid = |name: &str| storage.put(&key(name), json!({}))["metadata"]["uid"].clone();
    let (first, second) = (uid("first"), uid("second"));
    let owned = |by: &[&Value]| {
        let references: Vec<_> = by.iter().map(|uid| json!({ "uid": uid })).collect();
        json!({ "metadata": { "ownerReferences": references } })
    };
    let child = storage.put(&key("child"), owned(&[&first, &second]));
    storage.put(&key("grandchild"), owned(&[&child["metadata"]["uid"]]));
    storage.remove(&key("first"));
    assert!(storage.object(&key("grandchild")).is_some());
    storage.remove(&key("second"));
    assert!(storage.object(&key("child")).is_none());
    assert!(storage.object(&key("grandchild")).is_none());
}
