//! Reads policies.

use super::{AuthorizationPolicy, ObjectName, PeerAuthentication};

/// Why an object isn't a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn name(value: &serde_json::Value) -> Result<ObjectName, Error> {
    let part = |part: &str| {
        let text = value["metadata"][part].as_str();
        text.map(Into::into)
            .ok_or_else(|| Error(format!("metadata.{part} is missing")))
    };
    Ok(ObjectName {
        namespace: part("namespace")?,
        name: part("name")?,
    })
}

/// Reads an AuthorizationPolicy.
///
/// # Errors
/// [`Error`] names the field.
pub fn authorization_policy(value: serde_json::Value) -> Result<AuthorizationPolicy, Error> {
    Ok(AuthorizationPolicy {
        name: name(&value)?,
    })
}

/// Reads a PeerAuthentication.
///
/// # Errors
/// [`Error`] names the field.
pub fn peer_authentication(value: serde_json::Value) -> Result<PeerAuthentication, Error> {
    Ok(PeerAuthentication {
        name: name(&value)?,
    })
}
