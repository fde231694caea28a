mod routes;
mod services;
mod settings;
mod traffic_policies;

use super::*;
use crate::discovery::model::{Enrolment, Tunnel};

fn reducer() -> Reducer {
    Reducer::new("cluster.local")
}

/// A pod `shop/cart-0` from the text of its metadata (without namespace and name), spec, status.
fn pod_with(metadata: &str, spec: &str, status: &str) -> (Result<PodFacts, FieldError>, String) {
    let yaml = format!(
        "metadata: {{namespace: shop, name: cart-0, {metadata}}}\n\
         spec: {{{spec}}}\nstatus: {{{status}}}"
    );
    let pod: Pod = serde_norway::from_str(&yaml).unwrap();
    let mut issues = Vec::new();
    let reduced = reducer().pod(pod, &mut issues);
    (reduced, join(&issues))
}

fn join(issues: &[FieldError]) -> String {
    issues
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn pod(metadata: &str, spec: &str, status: &str) -> PodFacts {
    let (pod, issues) = pod_with(metadata, spec, status);
    assert_eq!(issues, "");
    pod.unwrap()
}

#[test]
fn ended_pods_are_told_from_those_that_still_run() {
    let deleted = "deletionTimestamp: '2026-01-02T03:04:05Z'";
    let stopped = "containerStatuses: [{state: {terminated: {exitCode: 0}}}]";
    let one_runs =
        "containerStatuses: [{state: {terminated: {exitCode: 0}}}, {state: {running: {}}}]";
    let cases = [
        ("", "", false),
        ("", "phase: Pending", false),
        ("", "phase: Running", false),
        ("", "phase: Unknown", false),
        ("", "phase: Succeeded", true),
        ("", "phase: Failed", true),
        ("", stopped, false),
        (deleted, "phase: Running", false),
        (deleted, one_runs, false),
        (deleted, stopped, true),
    ];
    for (metadata, status, ended) in cases {
        let facts = pod(metadata, "", status);
        assert_eq!(facts.ended, ended, "{metadata} {status}");
        assert_eq!(facts.workload.terminating, !metadata.is_empty());
    }
}

#[test]
fn addresses_come_from_the_plural_field_or_the_singular_one() {
    let cases = [
        ("", "[]"),
        ("podIP: ''", "[]"),
        ("podIP: 10.0.0.1", "[10.0.0.1]"),
        (
            "podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]",
            "[10.0.0.1, fd00::1]",
        ),
        ("podIP: '::ffff:10.0.0.1'", "[10.0.0.1]"),
        (
            "podIPs: [{ip: 10.0.0.1}, {ip: '::ffff:10.0.0.1'}]",
            "[10.0.0.1]",
        ),
    ];
    for (status, expected) in cases {
        let addresses = pod("", "", status).workload.addresses;
        assert_eq!(format!("{addresses:?}"), expected, "{status}");
    }
}

#[test]
fn tunnel_ends_at_the_pod_if_said_so_or_if_the_node_has_no_address() {
    let cases = [
        ("", "hostIP: 192.0.2.1", Tunnel::NodeAgent),
        (
            "",
            "hostIPs: [{ip: 192.0.2.1}, {ip: '2001:db8::1'}]",
            Tunnel::NodeAgent,
        ),
        ("", "", Tunnel::PodAddress),
        (
            "annotations: {ambit.dev/tunnel: pod}",
            "hostIP: 192.0.2.1",
            Tunnel::PodAddress,
        ),
    ];
    for (metadata, status, expected) in cases {
        assert_eq!(
            pod(metadata, "", status).workload.tunnel,
            expected,
            "{metadata} {status}"
        );
    }
}

#[test]
fn readiness_is_the_condition_or_yes() {
    let cases = [
        ("", true),
        ("conditions: [{type: Initialized, status: 'False'}]", true),
        ("conditions: [{type: Ready, status: 'True'}]", true),
        ("conditions: [{type: Ready, status: 'False'}]", false),
        ("conditions: [{type: Ready, status: Unknown}]", false),
    ];
    for (status, ready) in cases {
        assert_eq!(pod("", "", status).workload.ready, ready, "{status}");
    }
}

#[test]
fn identity_and_uid_have_defaults() {
    let bare = pod("", "", "podIP: 10.0.0.1").workload;
    assert_eq!(
        bare.identity.to_string(),
        "spiffe://cluster.local/ns/shop/sa/default"
    );
    assert_eq!(bare.uid.to_string(), "shop/cart-0@10.0.0.1");
    assert_eq!(&*bare.node, "");

    let full = pod("uid: u-1", "serviceAccountName: cart, nodeName: a", "").workload;
    assert_eq!(
        full.identity.to_string(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!((full.uid.to_string().as_str(), &*full.node), ("u-1", "a"));
}

#[test]
fn named_tcp_ports_are_kept_also_of_sidecars() {
    let ports = "[{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}, \
                 {containerPort: 9}]";
    let spec = format!(
        "containers: [{{name: a, ports: {ports}}}], initContainers: [\
         {{name: b, restartPolicy: Always, ports: [{{name: side, containerPort: 1}}]}}, \
         {{name: c, ports: [{{name: setup, containerPort: 2}}]}}]"
    );
    let found = pod("", &spec, "").ports;
    let found: Vec<_> = found.iter().map(|port| (&*port.name, port.port)).collect();
    assert_eq!(found, [("web", 8080), ("side", 1)]);
}

#[test]
fn telemetry_names_follow_owners_and_labels() {
    let owner = |kind: &str, name: &str| {
        format!("ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]")
    };
    let hashed = |name: &str| owner("ReplicaSet", name) + ", labels: {pod-template-hash: 6d4f}";
    let cases = [
        (String::new(), "cart-0 pod cart-0 latest unknown unknown"),
        (
            hashed("cart-6d4f"),
            "cart deployment cart latest unknown unknown",
        ),
        (
            hashed("cart6d4f"),
            "cart6d4f replicaset cart6d4f latest unknown unknown",
        ),
        (
            owner("ReplicaSet", "cart"),
            "cart replicaset cart latest unknown unknown",
        ),
        (
            owner("StatefulSet", "cart"),
            "cart statefulset cart latest unknown unknown",
        ),
        (
            owner("DaemonSet", "log"),
            "log daemonset log latest unknown unknown",
        ),
        (
            owner("Job", "report"),
            "report job report latest unknown unknown",
        ),
        (
            owner("Job", "report-29384756"),
            "report cronjob report latest unknown unknown",
        ),
        (
            owner("Job", "report-2938x756"),
            "report-2938x756 job report-2938x756 latest unknown unknown",
        ),
        (
            owner("Rollout", "cart"),
            "cart-0 pod cart-0 latest unknown unknown",
        ),
        (
            "labels: {app: web, version: v2}".into(),
            "cart-0 pod web v2 web v2",
        ),
        (
            "labels: {app: web, app.kubernetes.io/name: shop, app.kubernetes.io/version: '3'}"
                .into(),
            "cart-0 pod shop 3 web unknown",
        ),
        (
            "labels: {app.kubernetes.io/name: shop, service.istio.io/canonical-name: till, \
             service.istio.io/canonical-revision: r}"
                .into(),
            "cart-0 pod till r unknown unknown",
        ),
    ];
    for (metadata, expected) in cases {
        let names = pod(&metadata, "", "").workload.telemetry;
        let found = format!(
            "{} {} {} {} {} {}",
            names.workload,
            names.workload_type,
            names.canonical_service,
            names.canonical_revision,
            names.app,
            names.version
        );
        assert_eq!(found, expected, "{metadata}");
    }
}

#[test]
fn equal_parts_of_pods_are_shared() {
    let mut reducer = reducer();
    let mut reduce = |name: &str| {
        let yaml = format!("metadata: {{namespace: shop, name: {name}, labels: {{app: cart}}}}");
        reducer
            .pod(serde_norway::from_str(&yaml).unwrap(), &mut Vec::new())
            .unwrap()
            .workload
    };
    let (one, other) = (reduce("one"), reduce("other"));
    assert!(Arc::ptr_eq(&one.labels, &other.labels));
    assert!(Arc::ptr_eq(&one.name.namespace, &other.name.namespace));
    assert!(Arc::ptr_eq(&one.exclusions, &other.exclusions));
}

#[test]
fn unusable_values_are_errors_that_name_the_field() {
    let label = "a DNS label (up to 63 of a-z, 0-9 and '-', none of the ends '-')";
    let name = "a DNS name (up to 253 of a-z, 0-9, '-' and '.', a-z or 0-9 at the ends)";
    let port = "a port between 1 and 65535";
    let cases = [
        (
            "metadata: {namespace: a}",
            "metadata.name: is missing".to_owned(),
        ),
        (
            "metadata: {namespace: A, name: p}",
            format!("metadata.namespace: \"A\" is not {label}"),
        ),
        (
            "metadata: {name: p/q}",
            format!("metadata.name: \"p/q\" is not {name}"),
        ),
        (
            "{metadata: {name: p}, spec: {serviceAccountName: a/../b}}",
            format!("spec.serviceAccountName: \"a/../b\" is not {name}"),
        ),
        (
            "{metadata: {name: p}, spec: {nodeName: ' '}}",
            format!("spec.nodeName: \" \" is not {name}"),
        ),
        (
            "{metadata: {name: p}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0}]}}",
            "status.podIPs[1].ip: \"10.0.0\" is not an IP address".to_owned(),
        ),
        (
            "{metadata: {name: p}, status: {hostIP: node-a}}",
            "status.hostIP: \"node-a\" is not an IP address".to_owned(),
        ),
        (
            "{metadata: {name: p}, spec: {containers: [{ports: [{name: w, containerPort: 70000}]}]}}",
            format!("spec.containers[0].ports[0].containerPort: \"70000\" is not {port}"),
        ),
    ];
    for (yaml, expected) in cases {
        let pod: Pod = serde_norway::from_str(yaml).unwrap();
        let error = reducer().pod(pod, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{yaml}");
    }
}
