//! What a real server refuses, as far as it matters here.

use serde_json::{Value, json};

use crate::api_server::{refusal::Refusal, request::Call, resources::Resource};

/// Group, kind, namespace and name of a body are those of the request's path.
pub(super) fn head(of: &Resource, call: &Call, object: &Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request(
            "the body of the request isn't an object",
        ));
    }
    let (version, kind) = (&object["apiVersion"], &object["kind"]);
    // A typed client may leave both out: the path says them.
    let right = |given: &Value, own: &str| given.is_null() || given == own || given == "";
    if !right(version, &of.api_version()) || !right(kind, of.kind) {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}, {kind}) does not match the expected API \
             version ({}, {})",
            of.api_version(),
            of.kind
        )));
    }
    if of.is_custom() && (version.is_null() || kind.is_null()) {
        return Err(Refusal::bad_request("Object 'Kind' is missing"));
    }
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    if !namespace.is_empty() && namespace != call.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !call.name.is_empty() && !name.is_empty() && name != call.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let named = if name.is_empty() { &call.name } else { name };
    if named.is_empty() {
        let cause = (
            "FieldValueRequired",
            "metadata.name",
            "Required value: name or generateName is required",
        );
        return Err(Refusal::invalid(of, "", &[cause]));
    }
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if named.len() > 253 || !named.chars().all(fit) || named.starts_with(['-', '.']) {
        let message = format!(
            "Invalid value: {named:?}: a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric \
             character"
        );
        let cause = ("FieldValueInvalid", "metadata.name", message.as_str());
        return Err(Refusal::invalid(of, named, &[cause]));
    }
    Ok(())
}

/// The object without unknown fields, if its fields are well-formed.
pub(super) fn object(of: &Resource, name: &str, object: &Value) -> Result<Value, Refusal> {
    let mut object = object.clone();
    if of.kind == "Secret" {
        encode_strings(&mut object);
    }
    let object = match of.typed {
        None => object,
        Some(typed) => typed(&object).map_err(|error| {
            Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {error}",
                of.kind, of.version, of.kind
            ))
        })?,
    };
    let causes = match (of.group, of.kind) {
        ("coordination.k8s.io", "Lease") => lease(&object["spec"]),
        ("events.k8s.io", "Event") => event(&object),
        ("", "Event") => event_namespace(&object, "involvedObject"),
        _ => Vec::new(),
    };
    if causes.is_empty() {
        return Ok(object);
    }
    let causes: Vec<_> = causes
        .iter()
        .map(|(field, message)| {
            let reason = match message.split(':').next() {
                Some("Required value") => "FieldValueRequired",
                _ => "FieldValueInvalid",
            };
            (reason, *field, message.as_str())
        })
        .collect();
    Err(Refusal::invalid(of, name, &causes))
}

/// Of a pod's spec nothing that the mesh would write may change.
pub(super) fn unchanged_spec(of: &Resource, before: &Value, now: &Value) -> Result<(), Refusal> {
    if before["spec"] == now["spec"] {
        return Ok(());
    }
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let message = "Forbidden: pod updates may not change fields other than \
                   `spec.containers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations`";
    Err(Refusal::invalid(
        of,
        name,
        &[("FieldValueForbidden", "spec", message)],
    ))
}

type Cause = (&'static str, String);

fn lease(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if spec["leaseDurationSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds <= 0)
    {
        let value = &spec["leaseDurationSeconds"];
        let message = format!("Invalid value: {value}: must be greater than 0");
        causes.push(("spec.leaseDurationSeconds", message));
    }
    if spec["leaseTransitions"]
        .as_i64()
        .is_some_and(|transitions| transitions < 0)
    {
        let value = &spec["leaseTransitions"];
        let message = format!("Invalid value: {value}: must be greater than or equal to 0");
        causes.push(("spec.leaseTransitions", message));
    }
    if spec["holderIdentity"] == json!("") {
        causes.push((
            "spec.holderIdentity",
            "Invalid value: \"\": must not be empty".into(),
        ));
    }
    causes
}

fn event(event: &Value) -> Vec<Cause> {
    let mut causes = event_namespace(event, "regarding");
    let bounded = [
        ("reportingController", 1..=usize::MAX),
        ("reportingInstance", 1..=128),
        ("action", 1..=128),
        ("reason", 1..=128),
        ("eventTime", 1..=usize::MAX),
        ("note", 0..=1024),
    ];
    for (field, lengths) in bounded {
        let length = event[field].as_str().unwrap_or_default().len();
        if length < *lengths.start() {
            causes.push((field, "Required value".into()));
        } else if !lengths.contains(&length) {
            let most = lengths.end();
            causes.push((
                field,
                format!("Invalid value: \"\": can have at most {most} characters"),
            ));
        }
    }
    if event["type"] != "Normal" && event["type"] != "Warning" {
        causes.push((
            "type",
            format!("Invalid value: {}: has invalid value", event["type"]),
        ));
    }
    causes
}

/// An event is in the namespace of what it is about; what has none has its events in `default`.
fn event_namespace(event: &Value, about: &'static str) -> Vec<Cause> {
    let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
    let (own, of) = (
        text(&event["metadata"]["namespace"]),
        text(&event[about]["namespace"]),
    );
    let fits = if of.is_empty() {
        matches!(own.as_str(), "" | "default" | "kube-system")
    } else {
        own.is_empty() || own == of
    };
    if fits {
        return Vec::new();
    }
    let message = format!("Invalid value: {of:?}: does not match event.namespace");
    vec![("involvedObject.namespace", message)]
}

/// Moves a Secret's `stringData` into `data`.
fn encode_strings(object: &mut Value) {
    let Some(strings) = object
        .as_object_mut()
        .and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    for (name, text) in strings.as_object().into_iter().flatten() {
        let bytes = text.as_str().unwrap_or_default().as_bytes().to_vec();
        object["data"][name] = json!(k8s_openapi::ByteString(bytes));
    }
}
