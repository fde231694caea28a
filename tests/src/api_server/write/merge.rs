//! Changing a part of an object.

use serde_json::{Map, Value};

/// Lists whose items are told apart by fields of theirs.
const KEYED: [(&str, &[&str]); 10] = [
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("listeners", &["name"]),
    ("ownerReferences", &["uid"]),
    ("ports", &["containerPort", "port", "protocol"]),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
];

/// A JSON merge patch (RFC 7386).
pub(crate) fn patch(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    for (name, value) in fields {
        let object = as_object(target);
        if value.is_null() {
            object.remove(name);
        } else {
            self::patch(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Sets what is in `wanted` and leaves the rest.
pub(crate) fn set(target: &mut Value, wanted: &Value) {
    let Value::Object(fields) = wanted else {
        *target = wanted.clone();
        return;
    };
    for (name, value) in fields {
        let at = as_object(target).entry(name).or_insert(Value::Null);
        match (key_of(name, value), value) {
            (Some(key), Value::Array(items)) => set_items(at, items, key),
            _ => set(at, value),
        }
    }
}

/// Takes out of what a manager had applied what another wants to be different, and tells the paths of it.
pub(crate) fn contest(applied: &mut Value, wanted: &Value) -> Vec<String> {
    let mut lost = Vec::new();
    contest_below(applied, wanted, "", &mut lost);
    lost
}

fn contest_below(applied: &mut Value, wanted: &Value, path: &str, lost: &mut Vec<String>) {
    let (Value::Object(applied), Value::Object(wanted)) = (applied, wanted) else {
        return;
    };
    for (name, wanted) in wanted {
        let Some(had) = applied.get_mut(name) else {
            continue;
        };
        let path = format!("{path}.{name}");
        match (key_of(name, wanted), had, wanted) {
            (Some(key), Value::Array(had), Value::Array(wanted)) => {
                for wanted in wanted {
                    let same = had.iter_mut().find(|had| is_same(had, wanted, key));
                    if let Some(had) = same {
                        let names: Vec<_> = key.iter().map(|key| &wanted[*key]).collect();
                        contest_below(had, wanted, &format!("{path}{names:?}"), lost);
                    }
                }
            }
            (None, had @ Value::Object(_), Value::Object(_)) => {
                contest_below(had, wanted, &path, lost);
            }
            (_, had, wanted) if had != wanted => {
                lost.push(path);
                applied.remove(name);
            }
            _ => {}
        }
    }
}

/// Removes what was in `last`, but isn't in `wanted` any more.
pub(crate) fn remove_unwanted(target: &mut Value, last: &Value, wanted: &Value) {
    let (Value::Object(target), Value::Object(last)) = (target, last) else {
        return;
    };
    for (name, had) in last {
        let Some(at) = target.get_mut(name) else {
            continue;
        };
        match (key_of(name, had), had) {
            (Some(key), Value::Array(had)) => {
                let kept = wanted[name].as_array().map_or(&[][..], Vec::as_slice);
                let is_unwanted = |item: &Value| {
                    let same = |other: &&Value| is_same(other, item, key);
                    had.iter().any(|it| same(&it)) && !kept.iter().any(|it| same(&it))
                };
                if let Some(items) = at.as_array_mut() {
                    items.retain(|item| !is_unwanted(item));
                }
            }
            (None, Value::Object(_)) => {
                remove_unwanted(at, had, &wanted[name]);
                if wanted[name].is_null() && at.as_object().is_some_and(Map::is_empty) {
                    target.remove(name);
                }
            }
            _ if wanted[name].is_null() => {
                target.remove(name);
            }
            _ => {}
        }
    }
}

fn set_items(target: &mut Value, wanted: &[Value], key: &[&str]) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else {
        return;
    };
    for item in wanted {
        match items.iter_mut().find(|other| is_same(other, item, key)) {
            Some(other) => set(other, item),
            None => items.push(item.clone()),
        }
    }
}

/// By what the items of a list are told apart, if they are.
fn key_of(list: &str, items: &Value) -> Option<&'static [&'static str]> {
    let (_, key) = KEYED.iter().find(|(name, _)| *name == list)?;
    // Ports of other kinds are replaced whole.
    let is_keyed = |item: &Value| {
        let is_port = || {
            ["containerPort", "targetPort"]
                .iter()
                .any(|it| !item[*it].is_null())
        };
        item.is_object() && (list != "ports" || is_port())
    };
    items.as_array()?.iter().all(is_keyed).then_some(*key)
}

fn is_same(item: &Value, other: &Value, key: &[&str]) -> bool {
    key.iter().all(|field| item[*field] == other[*field])
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made an object"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let mut object = json!({ "a": { "x": 1, "y": [1] }, "b": 2 });
        patch(
            &mut object,
            &json!({ "a": { "x": null, "y": [2, 3], "z": { "new": null } } }),
        );
        assert_eq!(object, json!({ "a": { "y": [2, 3], "z": {} }, "b": 2 }));
    }

    #[test]
    fn items_of_lists_are_told_apart_by_their_keys() {
        let port = |number: u16, name: &str| json!({ "containerPort": number, "name": name });
        let item = |image: &str, ports: Value| json!({ "containers": [{ "name": "a", "image": image, "ports": ports }] });
        let mut object = item("1", json!([port(1, "x"), port(2, "y")]));
        set(&mut object, &item("2", json!([port(2, "z")])));
        assert_eq!(object, item("2", json!([port(1, "x"), port(2, "z")])));
        // Others are replaced whole.
        let mut object = json!({ "ports": ["80", "81"] });
        set(&mut object, &json!({ "ports": ["82"] }));
        assert_eq!(object, json!({ "ports": ["82"] }));
    }

    #[test]
    fn what_two_managers_want_to_be_different_is_one_managers() {
        let object = |replicas: u8, image: &str| {
            json!({
                "replicas": replicas, "paused": false,
                "containers": [{ "name": "a", "image": image }],
            })
        };
        let mut applied = object(1, "x");
        assert_eq!(contest(&mut applied, &object(1, "x")), Vec::<String>::new());
        let lost = contest(&mut applied, &object(2, "y"));
        assert_eq!(lost, [r#".containers[String("a")].image"#, ".replicas"]);
        let kept = json!({ "paused": false, "containers": [{ "name": "a" }] });
        assert_eq!(applied, kept);
    }

    #[test]
    fn what_a_manager_no_longer_applies_goes_and_others_fields_stay() {
        let mut object = json!({ "labels": { "other": "1" } });
        let first = json!({
            "labels": { "own": "1", "old": "1" },
            "spec": { "ports": [1] },
            "conditions": [{ "type": "A", "status": "True" }, { "type": "B", "status": "True" }],
        });
        set(&mut object, &first);
        let second = json!({
            "labels": { "own": "2" },
            "conditions": [{ "type": "B", "status": "False" }],
        });
        remove_unwanted(&mut object, &first, &second);
        set(&mut object, &second);
        let expected = json!({
            "labels": { "other": "1", "own": "2" },
            "conditions": [{ "type": "B", "status": "False" }],
        });
        assert_eq!(object, expected);
    }
}
