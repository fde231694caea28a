//! What a cluster's operator installs: manifests that an API server takes, that grant what is needed
//! and no more, and that the program understands.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lab::ambit_program;
use serde::Deserialize;
use serde_json::{Value, json};

/// What is applied with `kubectl apply -k`.
const BUILT: [&str; 1] = ["deploy"];
/// The oldest Kubernetes that the README promises, and the newest whose schemas are there.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];

/// The objects that `kubectl apply -k` would send.
fn built(directory: &str) -> Vec<Value> {
    let kubectl = Command::new("kubectl")
        .args(["kustomize", directory])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("kubectl: {error}; `cargo xtask setup` installs it"));
    let words = String::from_utf8_lossy(&kubectl.stderr);
    assert!(kubectl.status.success(), "{directory}: {words}");
    objects(str::from_utf8(&kubectl.stdout).unwrap())
}

fn objects(yaml: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo");
    Path::new(&package).parent().unwrap().to_owned()
}

/// Every object that this repository gives to a cluster.
fn everything() -> Vec<Value> {
    BUILT.into_iter().flat_map(built).collect()
}

/// `Kind/name`.
fn called(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    text(&object["kind"]) + "/" + &text(&object["metadata"]["name"])
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

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).chain(list(&pod["containers"]))
}

/// Where `cargo xtask setup` has put kubernetes-validate: above the directory of test programs.
fn validator() -> PathBuf {
    let own = env::current_exe().unwrap();
    let python = own.ancestors().nth(3).unwrap().join("python");
    let there = fs::read_dir(&python).into_iter().flatten();
    let program = there
        .map(|entry| entry.unwrap().path().join("bin/kubernetes-validate"))
        .find(|program| program.exists());
    program.unwrap_or_else(|| {
        panic!(
            "no kubernetes-validate in {}: run `cargo xtask setup`",
            python.display()
        )
    })
}

/// What a Kubernetes of this version says of an object: nothing if it would take it.
fn refusal(object: &Value, version: &str) -> Option<String> {
    let mut child = Command::new(validator())
        .args(["--strict", "--kubernetes-version", version, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = serde_json::to_string(object).unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    // A kind without a schema is only warned of.
    let passed = output.status.success() && words.starts_with("INFO - passed");
    (!passed).then_some(words)
}

#[test]
fn an_api_server_takes_every_object() {
    for object in everything() {
        for version in VERSIONS {
            assert_eq!(
                refusal(&object, version),
                None,
                "{} {version}",
                called(&object)
            );
        }
    }
}

#[test]
fn a_wrong_object_would_be_noticed() {
    let objects = built("deploy");
    let agent = objects.iter().find(|object| object["kind"] == "DaemonSet");
    for (pointer, wrong) in [
        (
            "/spec/template/spec/containers/0/ports",
            json!([{"containerPort": "metrics"}]),
        ),
        ("/spec/template/spec/tolerations", json!([{"op": "Exists"}])),
        ("/kind", json!("DemonSet")),
    ] {
        let mut agent = agent.unwrap().clone();
        *agent.pointer_mut(pointer).unwrap() = wrong;
        assert!(refusal(&agent, VERSIONS[1]).is_some(), "{pointer}");
    }
}

#[test]
fn the_program_knows_every_setting_of_its_containers() {
    let objects = everything();
    for (owner, pod) in pods(&objects) {
        for container in containers(pod).filter(|container| is_ours(container)) {
            let arguments: Vec<&str> = list(&container["args"]).filter_map(Value::as_str).collect();
            let help = Command::new(ambit_program().unwrap())
                .args([arguments[0], "--help"])
                .output()
                .unwrap();
            assert!(help.status.success(), "{owner}: {arguments:?}");
            let help = String::from_utf8(help.stdout).unwrap();
            for variable in list(&container["env"]) {
                let name = variable["name"].as_str().unwrap();
                let known = [format!("[env: {name}="), format!("[env: {name}]")];
                assert!(
                    known.iter().any(|known| help.contains(known)),
                    "{owner}: {name}"
                );
            }
            for option in arguments.iter().filter_map(|word| word.strip_prefix("--")) {
                let name = option.split('=').next().unwrap();
                assert!(help.contains(&format!("--{name} ")), "{owner}: --{name}");
            }
        }
    }
}

fn is_ours(container: &Value) -> bool {
    container["image"].as_str().unwrap().starts_with("ambit:")
}

#[test]
fn no_container_is_privileged_or_of_an_image_that_may_change() {
    let objects = everything();
    let pods = pods(&objects);
    assert!(pods.len() >= 2);
    for (owner, pod) in pods {
        for container in containers(pod) {
            let image = container["image"].as_str().unwrap();
            let tag = image.rsplit('/').next().unwrap().split_once(':');
            assert!(
                tag.is_some_and(|(_, tag)| tag != "latest"),
                "{owner}: {image}"
            );
            if !is_ours(container) {
                continue;
            }
            let mut context = container["securityContext"].clone();
            let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
            assert_eq!(seccomp, "RuntimeDefault", "{owner}");
            context["capabilities"]
                .as_object_mut()
                .unwrap()
                .remove("add");
            let fields = context.as_object_mut().unwrap();
            fields.retain(|name, _| !name.starts_with("runAs"));
            let expected = json!({
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(context, expected, "{owner}");
        }
    }
}

/// What subjects may do, a line for each verb: `subject: verb group/resource[/name] [in namespace]`.
fn grants(objects: &[Value]) -> BTreeSet<String> {
    let mut grants = BTreeSet::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for binding in objects.iter().filter(|object| !object["roleRef"].is_null()) {
        let namespace = &binding["metadata"]["namespace"];
        let role = objects.iter().find(|object| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && object["metadata"]["namespace"] == *namespace
        });
        let place = namespace
            .as_str()
            .map(|name| format!(" in {name}"))
            .unwrap_or_default();
        for rule in list(&role.expect("a binding has its role")["rules"]) {
            let names: Vec<String> = match list(&rule["resourceNames"]).count() {
                0 => vec![String::new()],
                _ => list(&rule["resourceNames"])
                    .map(|name| format!("/{}", text(name)))
                    .collect(),
            };
            for subject in list(&binding["subjects"]) {
                for group in list(&rule["apiGroups"]) {
                    for resource in list(&rule["resources"]) {
                        for verb in list(&rule["verbs"]) {
                            for name in &names {
                                grants.insert(format!(
                                    "{}: {} {}/{}{name}{place}",
                                    text(&subject["name"]),
                                    text(verb),
                                    text(group),
                                    text(resource),
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    grants
}

#[test]
fn rights_are_those_that_each_role_uses() {
    let mut expected = BTreeSet::new();
    for verb in ["list", "watch"] {
        for resource in [
            "/namespaces",
            "/nodes",
            "/pods",
            "/services",
            "discovery.k8s.io/endpointslices",
            "security.istio.io/authorizationpolicies",
            "security.istio.io/peerauthentications",
        ] {
            expected.insert(format!("ambit-node: {verb} {resource}"));
        }
        for resource in ["/nodes", "/pods"] {
            expected.insert(format!("ambit-control: {verb} {resource}"));
        }
    }
    for group in ["", "events.k8s.io"] {
        expected.insert(format!("ambit-node: create {group}/events"));
    }
    expected.insert("ambit-control: create authentication.k8s.io/tokenreviews".into());
    for (resource, name) in [
        ("/secrets", "ambit-ca"),
        ("/configmaps", "ambit-trust-bundle"),
        ("coordination.k8s.io/leases", "ambit-control"),
    ] {
        // A request to create says no name that a rule could ask for.
        expected.insert(format!("ambit-control: create {resource} in ambit-system"));
        for verb in ["get", "update"] {
            expected.insert(format!(
                "ambit-control: {verb} {resource}/{name} in ambit-system"
            ));
        }
    }
    assert_eq!(grants(&everything()), expected);
}
