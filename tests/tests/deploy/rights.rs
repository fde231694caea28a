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
    let bindings = objects.iter().filter(|object| !object["roleRef"].is_null());
    let of_binding = |binding: &Value| {
        let namespace = &binding["metadata"]["namespace"];
        let role = objects.iter().find(|object| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && object["metadata"]["namespace"] == *namespace
        });
        let rules = list(&role.expect("a binding has its role")["rules"]);
        let allowed: Vec<String> = rules.flat_map(allowed).collect();
        let place = namespace
            .as_str()
            .map_or_else(String::new, |name| format!(" in {name}"));
        let subjects = list(&binding["subjects"]).map(|subject| text(&subject["name"]));
        let lines = subjects.flat_map(|subject| {
            let line = |allowed| format!("{subject}: {allowed}{place}");
            allowed.iter().map(line).collect::<Vec<_>>()
        });
        lines.collect::<Vec<_>>()
    };
    bindings.flat_map(of_binding).collect()
}

/// `verb group/resource[/name]` for everything that a rule allows.
fn allowed(rule: &Value) -> Vec<String> {
    let each = |field: &str| list(&rule[field]).map(text).collect::<Vec<_>>();
    let mut names: Vec<String> = each("resourceNames");
    names.iter_mut().for_each(|name| name.insert(0, '/'));
    if names.is_empty() {
        names.push(String::new());
    }
    let mut lines = Vec::new();
    for group in each("apiGroups") {
        for resource in each("resources") {
            for verb in each("verbs") {
                lines.extend(
                    names
                        .iter()
                        .map(|name| format!("{verb} {group}/{resource}{name}")),
                );
            }
        }
    }
    lines
}

#[test]
fn rights_are_those_that_each_role_uses() {
    let mut expected = BTreeSet::new();
    for resource in [
        "/namespaces",
        "/nodes",
        "/pods",
        "/services",
        "ambit.dev/trafficpolicies",
        "discovery.k8s.io/endpointslices",
        "gateway.networking.k8s.io/gateways",
        "gateway.networking.k8s.io/grpcroutes",
        "gateway.networking.k8s.io/httproutes",
        "gateway.networking.k8s.io/referencegrants",
        "security.istio.io/authorizationpolicies",
        "security.istio.io/peerauthentications",
        "security.istio.io/requestauthentications",
    ] {
        for verb in ["list", "watch"] {
            expected.insert(format!("ambit-node: {verb} {resource}"));
            expected.insert(format!("ambit-control: {verb} {resource}"));
        }
        // An Event names the object's uid.
        expected.insert(format!("ambit-control: get {resource}"));
    }
    for (verb, resource) in [
        ("create", "authentication.k8s.io/tokenreviews"),
        ("create", "events.k8s.io/events"),
        ("get", "events.k8s.io/events"),
        ("patch", "events.k8s.io/events"),
        ("patch", "/pods/status"),
        ("update", "gateway.networking.k8s.io/grpcroutes/status"),
        ("update", "gateway.networking.k8s.io/httproutes/status"),
        ("update", "ambit.dev/trafficpolicies/status"),
        ("update", "security.istio.io/authorizationpolicies/status"),
        ("update", "security.istio.io/peerauthentications/status"),
        ("update", "security.istio.io/requestauthentications/status"),
    ] {
        expected.insert(format!("ambit-control: {verb} {resource}"));
    }
    // Waypoints: what they are made of, in whatever namespace, and whom they read by.
    for resource in [
        "/configmaps",
        "/serviceaccounts",
        "/services",
        "apps/deployments",
        "policy/poddisruptionbudgets",
    ] {
        for verb in ["get", "list", "watch", "create", "patch"] {
            expected.insert(format!("ambit-control: {verb} {resource}"));
        }
    }
    for verb in ["create", "delete"] {
        expected.insert(format!(
            "ambit-control: {verb} gateway.networking.k8s.io/gateways"
        ));
    }
    for verb in ["list", "watch"] {
        expected.insert(format!(
            "ambit-control: {verb} gateway.networking.k8s.io/gatewayclasses"
        ));
    }
    for resource in ["gatewayclasses", "gateways"] {
        expected.insert(format!(
            "ambit-control: patch gateway.networking.k8s.io/{resource}/status"
        ));
    }
    expected.insert("ambit-control: update gateway.networking.k8s.io/gateways/finalizers".into());
    expected
        .insert("ambit-control: bind rbac.authorization.k8s.io/clusterroles/ambit-waypoint".into());
    for verb in ["get", "list", "watch", "update"] {
        expected.insert(format!(
            "ambit-control: {verb} rbac.authorization.k8s.io/clusterrolebindings/ambit-waypoints"
        ));
    }
    // The key is changed by cert-manager or an operator alone.
    for (resource, name, verbs) in [
        ("/secrets", "ambit-ca", &["get"][..]),
        ("/configmaps", "ambit-trust-bundle", &["get", "update"]),
        (
            "coordination.k8s.io/leases",
            "ambit-control",
            &["get", "update"],
        ),
    ] {
        // A request to create says no name that a rule could ask for.
        expected.insert(format!("ambit-control: create {resource} in ambit-system"));
        for verb in verbs {
            expected.insert(format!(
                "ambit-control: {verb} {resource}/{name} in ambit-system"
            ));
        }
    }
    assert_eq!(grants(&everything()), expected);
}

#[test]
fn pods_see_of_their_node_what_they_need() {
    let objects = everything();
    let seen: BTreeSet<String> = pods(&objects)
        .into_iter()
        .flat_map(|(owner, pod)| {
            let paths = list(&pod["volumes"]).map(|volume| text(&volume["hostPath"]["path"]));
            let paths = paths.filter(|path| !path.is_empty());
            paths
                .map(|path| format!("{owner}: {path}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let expected = [
        "DaemonSet/ambit-node: /proc/sys/net/ipv4/conf/lo",
        "DaemonSet/ambit-node: /run/ambit",
        "DaemonSet/ambit-node: /sys/fs/bpf",
        "DaemonSet/ambit-node: /sys/fs/cgroup",
        "DaemonSet/ambit-uninstall: /proc/sys/net/ipv4/conf/lo",
        "DaemonSet/ambit-uninstall: /run/ambit",
        "DaemonSet/ambit-uninstall: /sys/fs/bpf",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());
}
