//! What the objects allow: to their service accounts, and to their containers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{containers, everything, is_ours, list, pods, text};

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
