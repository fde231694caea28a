//! What this repository gives to a cluster.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize as _;
use serde_json::Value;

use crate::{ApiServer, Error, Lab, Rbac, Result};

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

/// A cluster as it is after `kubectl apply -k deploy/waypoints`, as far as control and agents ask for it: they may
/// do what the roles of the manifests say, and no more.
///
/// # Errors
/// As [`ApiServer::start`] and [`kustomize`].
pub fn installed(lab: &Lab) -> Result<ApiServer> {
    let api = ApiServer::start(lab)?;
    let installed = kustomize("deploy")?;
    for object in kustomize("deploy/waypoints")?.iter().chain(&installed) {
        let kind = object["kind"].as_str();
        if matches!(kind, Some("ClusterRoleBinding" | "GatewayClass")) {
            api.apply(object.clone())?;
        }
    }
    api.authorize(Rbac::new(&installed)?);
    Ok(api)
}

/// Where `cargo xtask setup` has put kubernetes-validate: above the directory of test programs.
///
/// # Errors
/// If it isn't there.
pub fn validator() -> Result<PathBuf> {
    let own = env::current_exe().map_err(Error::io("find this program"))?;
    let python = own.ancestors().nth(3).unwrap_or(&own).join("python");
    let there = fs::read_dir(&python).into_iter().flatten().flatten();
    let mut programs = there.map(|entry| entry.path().join("bin/kubernetes-validate"));
    let program = programs.find(|program| program.exists());
    program.ok_or_else(|| {
        let what = format!("kubernetes-validate in {}", python.display());
        Error::malformed(what, "it isn't there: run `cargo xtask setup`")
    })
}

/// What a Kubernetes of this version says of objects: nothing if it would take them all.
///
/// # Errors
/// If it can't be asked.
pub fn refusals(objects: &[Value], version: &str) -> Result<Vec<String>> {
    let arguments = ["--strict", "--kubernetes-version", version, "-"];
    let output = told(&validator()?, &arguments, objects)?;
    let words = String::from_utf8_lossy(&output.stdout);
    // A kind without a schema is only warned of.
    let (passed, refused): (Vec<&str>, Vec<&str>) = words
        .lines()
        .partition(|line| line.starts_with("INFO - passed"));
    if passed.len() + refused.len() != objects.len() {
        let failure = String::from_utf8_lossy(&output.stderr);
        return Err(Error::malformed(
            "the answer of kubernetes-validate",
            format!("{words}{failure}"),
        ));
    }
    Ok(refused.into_iter().map(str::to_owned).collect())
}

/// Runs a program with objects as its input, as a stream of YAML.
///
/// # Errors
/// If it can't be run.
pub fn told(program: &Path, arguments: &[&str], objects: &[Value]) -> Result<Output> {
    let doing = || Error::io(format!("run {}", program.display()));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(doing())?;
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(documents.join("\n---\n").as_bytes())
            .map_err(doing())?;
    }
    child.wait_with_output().map_err(doing())
}
