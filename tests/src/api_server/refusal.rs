//! Errors as the server says them: `Status` objects.

use serde_json::{Value, json};

use super::resources::Resource;

/// Why a request isn't answered as asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refusal {
    /// A `Status` object.
    Status {
        code: u16,
        reason: &'static str,
        message: String,
        details: Value,
    },
    /// No part of the server feels responsible for the path.
    PageNotFound,
}

impl Refusal {
    pub(super) fn not_found(of: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", of.qualified());
        Self::about(404, "NotFound", message, of, name)
    }

    /// The path is well-formed, but nothing can be there.
    pub(super) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::plain(404, "NotFound", message)
    }

    pub(super) fn already_exists(of: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", of.qualified());
        Self::about(409, "AlreadyExists", message, of, name)
    }

    /// The object has another version by now.
    pub(super) fn conflict(of: &Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please \
             apply your changes to the latest version and try again",
            of.qualified()
        );
        Self::about(409, "Conflict", message, of, name)
    }

    /// Another manager has applied these fields, and wants them to be different.
    pub(super) fn manager_conflict(of: &Resource, name: &str, by: &str, fields: &[String]) -> Self {
        let (count, fields) = (fields.len(), fields.join(", "));
        let message =
            format!("Apply failed with {count} conflicts: conflicts with {by:?}: {fields}");
        Self::about(409, "Conflict", message, of, name)
    }

    /// Another object has the name by now.
    pub(super) fn other_uid(of: &Resource, name: &str, asked: &str, has: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: Precondition failed: UID in \
             precondition: {asked}, UID in object meta: {has}",
            of.qualified()
        );
        Self::about(409, "Conflict", message, of, name)
    }

    pub(super) fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::plain(405, "MethodNotAllowed", message)
    }

    pub(super) fn media_type(given: &str, accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({given:?}) - accepted media types \
             include: {accepted}"
        );
        Self::plain(415, "UnsupportedMediaType", message)
    }

    /// The version that a client goes on from is forgotten.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::plain(410, "Expired", message)
    }

    /// Fields with wrong values; each cause is (reason, field, message).
    pub(super) fn invalid(of: &Resource, name: &str, causes: &[(&str, &str, &str)]) -> Self {
        let listed: Vec<String> = causes
            .iter()
            .map(|(_, field, message)| format!("{field}: {message}"))
            .collect();
        let all = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = match of.group {
            "" => of.kind.into(),
            group => format!("{}.{group}", of.kind),
        };
        let causes: Vec<Value> = causes
            .iter()
            .map(|(reason, field, message)| {
                json!({ "reason": reason, "field": field, "message": message })
            })
            .collect();
        Self::Status {
            code: 422,
            reason: "Invalid",
            message: format!("{qualified} {name:?} is invalid: {all}"),
            details: json!({
                "name": name, "group": of.group, "kind": of.kind, "causes": causes,
            }),
        }
    }

    pub(super) fn about(
        code: u16,
        reason: &'static str,
        message: String,
        of: &Resource,
        name: &str,
    ) -> Self {
        let mut details = json!({ "kind": of.plural });
        for (field, value) in [("group", of.group), ("name", name)] {
            if !value.is_empty() {
                details[field] = json!(value);
            }
        }
        Self::Status {
            code,
            reason,
            message,
            details,
        }
    }

    pub(super) fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self::Status {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Status { code, .. } => *code,
            Self::PageNotFound => 404,
        }
    }

    /// The `Status` object. A page that isn't found has none over HTTP.
    pub(super) fn status(&self) -> Value {
        let Self::Status {
            code,
            reason,
            message,
            details,
        } = self
        else {
            return Self::no_such_resource().status();
        };
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        });
        if !details.is_null() {
            status["details"] = details.clone();
        }
        status
    }
}
