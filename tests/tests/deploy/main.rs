//! What a cluster's operator installs: manifests that an API server takes, that grant what is needed
//! and no more, and that the program understands.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

mod rights;
mod running;
mod settings;
mod valid;

use std::fs;

use lab::deploy::{kustomize, repository};
use serde_json::Value;

/// What is applied with `kubectl apply -k`.
const BUILT: [&str; 5] = [
    "deploy",
    "deploy/crds",
    "deploy/monitoring",
    "deploy/uninstall",
    "deploy/waypoints",
];

/// Every object that this repository gives to a cluster.
fn everything() -> Vec<Value> {
    let examples = examples().into_iter();
    let examples = examples.flat_map(|(_, yaml)| objects(&yaml));
    BUILT.into_iter().flat_map(built).chain(examples).collect()
}

/// The objects of a directory.
fn built(directory: &str) -> Vec<Value> {
    kustomize(directory).unwrap()
}

/// The objects of a text.
fn objects(yaml: &str) -> Vec<Value> {
    lab::deploy::objects(yaml).unwrap()
}

/// The files that a newcomer applies, in order: name and text.
fn examples() -> Vec<(String, String)> {
    let directory = repository().join("deploy/examples");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// `Kind/name`.
fn called(object: &Value) -> String {
    [&object["kind"], &object["metadata"]["name"]]
        .map(text)
        .join("/")
}

/// The one object with this kind and name.
fn find<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| called(object) == name);
    found.next().unwrap_or_else(|| panic!("there is no {name}"))
}

/// Each pod that an object makes: the object's name, and the pod's spec.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let pods = objects.iter().filter_map(|object| {
        let spec = match object["kind"].as_str().unwrap() {
            "Pod" => &object["spec"],
            "DaemonSet" | "Deployment" | "Job" => &object["spec"]["template"]["spec"],
            _ => return None,
        };
        Some((called(object), spec))
    });
    pods.collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).chain(list(&pod["containers"]))
}

/// Whether a container is of this repository's own image.
fn is_ours(container: &Value) -> bool {
    text(&container["image"]).starts_with("ambit:")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
