//! Changing a part of an object.

use serde_json::{Map, Value};

/// Lists whose items are told apart by a field of theirs.
const KEYED: [(&str, &str); 2] = [("conditions", "type"), ("ownerReferences", "uid")];

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
        match (key_of(name), value) {
            (Some(key), Value::Array(items)) => set_items(at, items, key),
            _ => set(at, value),
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
        match (key_of(name), had) {
            (Some(key), Value::Array(had)) => {
                let kept = wanted[name].as_array().map_or(&[][..], Vec::as_slice);
                let is_unwanted = |item: &Value| {
                    let same = |other: &&Value| other[key] == item[key];
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

fn set_items(target: &mut Value, wanted: &[Value], key: &str) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else {
        return;
    };
    for item in wanted {
        match items.iter_mut().find(|other| other[key] == item[key]) {
            Some(other) => set(other, item),
            None => items.push(item.clone()),
        }
    }
}

fn key_of(list: &str) -> Option<&'static str> {
    let mut known = KEYED.iter();
    known.find(|(name, _)| *name == list).map(|(_, key)| *key)
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
