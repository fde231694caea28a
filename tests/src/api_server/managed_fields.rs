//! The record of who wrote what, as bulky as Kubernetes keeps it with every object.

use serde_json::{Map, Value, json};

use super::storage::now;

/// `metadata.managedFields` of an object, as if one manager had written all of it.
pub(super) fn of(object: &Value) -> Value {
    let mut written = Map::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        let tree = match field.as_str() {
            "apiVersion" | "kind" => continue,
            "metadata" => {
                let mut metadata = Map::new();
                for field in ["annotations", "labels", "ownerReferences", "finalizers"] {
                    if let Some(value) = value.get(field) {
                        metadata.insert(format!("f:{field}"), fields(value));
                    }
                }
                Value::Object(metadata)
            }
            _ => fields(value),
        };
        written.insert(format!("f:{field}"), tree);
    }
    json!([{
        "apiVersion": object["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": written,
        "manager": "lab",
        "operation": "Update",
        "time": now(),
    }])
}

fn fields(value: &Value) -> Value {
    match value {
        Value::Object(of) => {
            let mut tree = Map::from_iter([(".".into(), json!({}))]);
            tree.extend(
                of.iter()
                    .map(|(name, value)| (format!("f:{name}"), fields(value))),
            );
            Value::Object(tree)
        }
        Value::Array(items) => {
            let keyed = |item: &Value| (format!("k:{item}"), fields(item));
            Value::Object(items.iter().map(keyed).collect())
        }
        _ => json!({}),
    }
}
