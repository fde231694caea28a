//! From the objects of `security.istio.io` to checked policies.
//!
//! Stricter than a typical reader of manifests: a field that isn't known, a value that could never
//! match and a list that is empty are errors, because in a security policy a slip of the pen must
//! not silently widen access. Whoever calls keeps the last good state of a policy that fails.

mod authorization;
mod condition;
mod http;
mod peer_authentication;
mod request_authentication;
mod target;
#[cfg(test)]
mod tests;
mod values;

use jiff::Timestamp;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use self::values::{Fields, Text};
use super::model::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::discovery::model::ObjectName;

/// Why an object isn't a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the kind or version that was asked for.
    #[error("{name}: {field} is {found}; write {expected}")]
    WrongType {
        /// Namespace and name.
        name: String,
        /// `kind` or `apiVersion`.
        field: &'static str,
        /// What would do.
        expected: String,
        /// What it says, as JSON.
        found: String,
    },
    /// A field of it is wrong.
    #[error("{kind} {name}: {path}: {problem}")]
    Field {
        /// The kind of the object.
        kind: &'static str,
        /// Namespace and name.
        name: String,
        /// As in `spec.rules[0].to[0].operation.ports[0]`; `.` for the object itself.
        path: String,
        /// What was found, and what to write instead.
        problem: String,
    },
}

impl Error {
    /// Kind, namespace and name of the object, as far as they are what they should be.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::WrongType { name, .. } => name.clone(),
            Self::Field { kind, name, .. } => format!("{kind} {name}"),
        }
    }

    /// Kind, namespace and name, where they are what they should be.
    #[must_use]
    pub fn name(&self) -> Option<(&str, &str, &str)> {
        match self {
            Self::WrongType { .. } => None,
            Self::Field { kind, name, .. } => {
                let (namespace, name) = name.split_once('/')?;
                Some((kind, namespace, name))
            }
        }
    }

    /// Path of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::WrongType { field, .. } => field,
            Self::Field { path, .. } => path,
        }
    }
}

/// Reads an AuthorizationPolicy.
///
/// # Errors
/// [`Error`], naming the object and the field.
pub fn authorization_policy(value: Value) -> Result<AuthorizationPolicy, Error> {
    let object: Object<authorization::Spec> = read("AuthorizationPolicy", value)?;
    let name = object.metadata.0.object_name();
    Ok(object.spec.unwrap_or_default().policy(
        name,
        object
            .metadata
            .0
            .annotations
            .and_then(|Fields(annotations)| annotations.dry_run)
            .is_some_and(|Text(dry_run)| dry_run),
    ))
}

/// Reads a PeerAuthentication.
///
/// # Errors
/// [`Error`], naming the object and the field.
pub fn peer_authentication(value: Value) -> Result<PeerAuthentication, Error> {
    let object: Object<peer_authentication::Spec> = read("PeerAuthentication", value)?;
    let name = object.metadata.0.object_name();
    let created = object.metadata.0.creation_timestamp.map(|Text(at)| at);
    Ok(object.spec.unwrap_or_default().policy(name, created))
}

/// Reads a RequestAuthentication.
///
/// # Errors
/// [`Error`], naming the object and the field.
pub fn request_authentication(value: Value) -> Result<RequestAuthentication, Error> {
    let object: Object<request_authentication::Spec> = read("RequestAuthentication", value)?;
    let name = object.metadata.0.object_name();
    Ok(object.spec.unwrap_or_default().policy(name))
}

/// What is common to the kinds. An absent spec is an empty one, as in a cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Object<S> {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
    metadata: Fields<Metadata>,
    spec: Option<S>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Text<String>,
    namespace: Option<Text<String>>,
    annotations: Option<Fields<Annotations>>,
    creation_timestamp: Option<Text<Timestamp>>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "istio.io/dry-run")]
    dry_run: Option<Text<bool>>,
}

impl Metadata {
    fn object_name(&self) -> ObjectName {
        let namespace = self.namespace.as_ref();
        ObjectName {
            namespace: namespace
                .map_or(DEFAULT_NAMESPACE, |Text(name)| name)
                .into(),
            name: self.name.0.as_str().into(),
        }
    }
}

/// Where `kubectl apply` puts an object that names no namespace.
const DEFAULT_NAMESPACE: &str = "default";

const API_VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];

fn read<S: DeserializeOwned>(kind: &'static str, value: Value) -> Result<Object<S>, Error> {
    let name = name_for_errors(&value);
    expect(&name, &value, "kind", &[kind])?;
    expect(&name, &value, "apiVersion", &API_VERSIONS)?;
    serde_path_to_error::deserialize(value)
        .map(|Fields(object)| object)
        .map_err(|error| Error::Field {
            kind,
            name,
            path: error.path().to_string(),
            problem: error.into_inner().to_string(),
        })
}

/// A list from the Kubernetes API leaves kind and version out of its items, so absent is right.
fn expect(name: &str, value: &Value, field: &'static str, expected: &[&str]) -> Result<(), Error> {
    match value.get(field) {
        Some(found) if !expected.iter().any(|expected| found == expected) => {
            Err(Error::WrongType {
                name: name.to_owned(),
                field,
                expected: expected.join(" or "),
                found: found.to_string(),
            })
        }
        _ => Ok(()),
    }
}

/// Reads what it can of the name of an object that may be wrong in any way.
fn name_for_errors(value: &Value) -> String {
    let text = |field| value["metadata"][field].as_str();
    format!(
        "{}/{}",
        text("namespace").unwrap_or(DEFAULT_NAMESPACE),
        text("name").unwrap_or("(without a name)")
    )
}
