//! Objects in files, and policies among them.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    discovery::{
        manifest::{Format, Manifest, parse},
        reduce::Reducer,
    },
    policy::parse as policies,
};

/// Longer ones take a fuzzer's time and show nothing new.
const LONGEST: usize = 16 << 10;

pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if text.len() <= LONGEST {
        check(&text);
    }
}

/// Every object is used, reported or of no concern, and the same in YAML and JSON.
pub(crate) fn check(text: &str) {
    if let Ok(manifest) = read(text, Format::Json) {
        check_counts(&manifest);
    }
    let Ok(manifest) = read(text, Format::Yaml) else {
        return;
    };
    check_counts(&manifest);
    let documents = serde_norway::Deserializer::from_str(text).map(Value::deserialize);
    let documents: Result<Vec<Value>, _> = documents.collect();
    let documents = documents.expect("they were read before");
    let mut of_json = Manifest::default();
    for document in documents {
        let one = read(&document.to_string(), Format::Json);
        let one = one.expect("what was written as JSON is JSON");
        of_json.objects.extend(one.objects);
        of_json.broken.extend(one.broken);
        of_json.ignored += one.ignored;
    }
    let objects = |manifest: &Manifest| -> Vec<String> {
        let objects = manifest.objects.iter();
        objects
            .map(|it| format!("{} {:?}", it.key, it.object))
            .collect()
    };
    assert_eq!(objects(&manifest), objects(&of_json), "{text}");
    assert_eq!(manifest.broken, of_json.broken, "{text}");
    assert_eq!(manifest.ignored, of_json.ignored, "{text}");
}

fn read(text: &str, format: Format) -> Result<Manifest, crate::discovery::manifest::Error> {
    parse(text, format, &mut Reducer::new("cluster.local"))
}

fn check_counts(manifest: &Manifest) {
    assert!(manifest.errors.len() >= manifest.broken.len());
    for error in &manifest.errors {
        assert!(!error.to_string().is_empty());
    }
}

/// A policy as JSON.
pub(super) fn policy(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    check_policy("AuthorizationPolicy", &value, |value| {
        policies::authorization_policy(value).map(drop)
    });
    check_policy("PeerAuthentication", &value, |value| {
        policies::peer_authentication(value).map(drop)
    });
    check_policy("RequestAuthentication", &value, |value| {
        policies::request_authentication(value).map(drop)
    });
}

/// An error names the object. Of one that is read every field counts: with one more that isn't known it is refused.
fn check_policy(kind: &str, value: &Value, read: impl Fn(Value) -> Result<(), policies::Error>) {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
        fields.remove("status");
    }
    if let Err(error) = read(value.clone()) {
        assert!(error.to_string().starts_with(kind), "{error}");
        return;
    }
    let mut found = Vec::new();
    places(&value, "", &mut found);
    found.retain(|place| value.pointer(place).is_some_and(Value::is_object));
    found.retain(|place| !place.starts_with("/metadata") && !place.ends_with("/matchLabels"));
    for place in found {
        let mut typo = value.clone();
        if let Some(Value::Object(fields)) = typo.pointer_mut(&place) {
            fields.insert("typo".into(), json!(["a"]));
        }
        assert!(read(typo).is_err(), "a typo at {place:?} of {value}");
    }
}

/// Every place of a value, the value itself among them, as JSON pointers.
pub(crate) fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{here}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(item, &format!("{here}/{key}"), found);
            }
        }
        _ => {}
    }
}
