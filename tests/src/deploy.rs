//! What this repository gives to a cluster.

use std::{path::Path, process::Command};

use serde::Deserialize as _;
use serde_json::Value;

use crate::{Error, Result};

/// The root of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The objects of a YAML text.
///
/// # Errors
/// If it isn't YAML.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let documents = serde_norway::Deserializer::from_str(yaml).map(Value::deserialize);
    let objects: std::result::Result<Vec<Value>, _> = documents.collect();
    let mut objects = objects.map_err(|error| Error::Malformed {
        what: "YAML".into(),
        cause: error.to_string(),
    })?;
    objects.retain(|object| !object.is_null());
    Ok(objects)
}

/// The objects that `kubectl apply -k` would send of a directory of the repository.
///
/// # Errors
/// If kubectl isn't installed (`cargo xtask setup` does that), or refuses the directory.
pub fn kustomize(directory: &str) -> Result<Vec<Value>> {
    let kubectl = Command::new("kubectl")
        .args(["kustomize", directory])
        .current_dir(repository())
        .output()
        .map_err(Error::io("run kubectl, which `cargo xtask setup` installs"))?;
    if !kubectl.status.success() {
        return Err(Error::Malformed {
            what: directory.into(),
            cause: String::from_utf8_lossy(&kubectl.stderr).into_owned(),
        });
    }
    objects(&String::from_utf8_lossy(&kubectl.stdout))
}
