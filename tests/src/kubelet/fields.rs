//! What an object must have.

use serde_json::Value;

use crate::{Error, Result};

/// What is at a place (a JSON pointer) of an object, as `read` has it: `Value::as_str`, for example.
///
/// # Errors
/// If there is nothing of the kind.
pub(super) fn field<'a, T>(
    object: &'a Value,
    pointer: &str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<T> {
    let found = object.pointer(pointer).and_then(read);
    found.ok_or_else(|| {
        let cause = format!("{pointer:?} is missing, or of another type, in {object}");
        Error::malformed("an object of a waypoint", cause)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_is_missing_is_named() {
        let object = json!({ "spec": { "ports": [{ "name": "hbone" }] } });
        let name = field(&object, "/spec/ports/0/name", Value::as_str);
        assert_eq!(name.unwrap(), "hbone");
        for wrong in ["/spec/ports/0", "/spec/ports/1/name"] {
            let error = field(&object, wrong, Value::as_str).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
