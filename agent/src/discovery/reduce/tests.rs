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
fn labels_decide_enrolment_and_ambits_wins_over_istios() {
    let cases = [
        ("", None, Enrolment::NotLabelled),
        ("ambit.dev/mesh: enabled", Some(true), Enrolment::Enrolled),
        ("ambit.dev/mesh: disabled", Some(false), Enrolment::Disabled),
        (
            "istio.io/dataplane-mode: ambient",
            Some(true),
            Enrolment::Enrolled,
        ),
        (
            "istio.io/dataplane-mode: none",
            Some(false),
            Enrolment::Disabled,
        ),
        (
            "ambit.dev/mesh: disabled, istio.io/dataplane-mode: ambient",
            Some(false),
            Enrolment::Disabled,
        ),
        (
            "ambit.dev/mesh: enabled, istio.io/dataplane-mode: none",
            Some(true),
            Enrolment::Enrolled,
        ),
    ];
    for (labels, own, enrolment) in cases {
        let facts = pod(&format!("labels: {{{labels}}}"), "", "");
        assert_eq!(
            (facts.enrolment, facts.workload.enrolment),
            (own, enrolment),
            "{labels}"
        );
    }
}

#[test]
fn unknown_setting_is_an_issue_that_names_it_and_counts_as_not_set() {
    let cases = [
        (
            "labels: {ambit.dev/mesh: 'on', istio.io/dataplane-mode: ambient}",
            "metadata.labels[ambit.dev/mesh]: \"on\" is not \"enabled\" or \"disabled\"",
            Some(true),
        ),
        (
            "labels: {istio.io/dataplane-mode: sidecar}",
            "metadata.labels[istio.io/dataplane-mode]: \"sidecar\" is not \"ambient\" or \"none\"",
            None,
        ),
        (
            "annotations: {ambit.dev/tunnel: node}",
            "metadata.annotations[ambit.dev/tunnel]: \"node\" is not \"pod\"; it counts as not set",
            None,
        ),
        (
            "uid: a/b",
            "metadata.uid: \"a/b\" is not a UID; it is ignored",
            None,
        ),
    ];
    for (metadata, expected, enrolment) in cases {
        let (facts, issues) = pod_with(metadata, "", "");
        assert_eq!(issues, expected);
        assert_eq!(facts.unwrap().enrolment, enrolment, "{metadata}");
    }
}

#[test]
fn host_network_pod_is_not_enrolled_whatever_its_label() {
    for labels in ["", "ambit.dev/mesh: enabled", "ambit.dev/mesh: disabled"] {
        let facts = pod(&format!("labels: {{{labels}}}"), "hostNetwork: true", "");
        assert_eq!(facts.workload.enrolment, Enrolment::HostNetwork, "{labels}");
    }
}

#[test]
fn exclusions_are_read_entry_by_entry() {
    let port = |text: &str, which: &str| {
        format!(
            "metadata.annotations[ambit.dev/exclude-{which}-ports]: \"{text}\" is not a port \
             between 1 and 65535; it is ignored"
        )
    };
    let network = |text: &str| {
        format!(
            "metadata.annotations[ambit.dev/exclude-outbound-cidrs]: \"{text}\" is not a network \
             such as 10.0.0.0/8, or an address; it is ignored"
        )
    };
    let cases = [
        ("outbound-ports: ''", "[] [] []", String::new()),
        (
            "outbound-ports: ' 443, 80 ,443'",
            "[80, 443] [] []",
            String::new(),
        ),
        ("inbound-ports: '9090'", "[] [9090] []", String::new()),
        (
            "outbound-ports: '80,http'",
            "[80] [] []",
            port("http", "outbound"),
        ),
        (
            "inbound-ports: '0,1,65536'",
            "[] [1] []",
            port("0", "inbound") + "\n" + &port("65536", "inbound"),
        ),
        ("outbound-ports: '80,'", "[80] [] []", port("", "outbound")),
        (
            "outbound-cidrs: '10.1.2.3/8,fd00::/8'",
            "[] [] [10.0.0.0/8, fd00::/8]",
            String::new(),
        ),
        (
            "outbound-cidrs: '10.1.2.3'",
            "[] [] [10.1.2.3/32]",
            String::new(),
        ),
        (
            "outbound-cidrs: '::ffff:10.0.0.0/104'",
            "[] [] [10.0.0.0/8]",
            String::new(),
        ),
        (
            "outbound-cidrs: '10.0.0.0/33,all'",
            "[] [] []",
            network("10.0.0.0/33") + "\n" + &network("all"),
        ),
    ];
    for (annotation, expected, issues) in cases {
        let (facts, found) = pod_with(
            &format!("annotations: {{ambit.dev/exclude-{annotation}}}"),
            "",
            "",
        );
        let exclusions = facts.unwrap().workload.exclusions;
        let text = format!(
            "{:?} {:?} {:?}",
            exclusions.outbound_ports, exclusions.inbound_ports, exclusions.outbound_cidrs
        );
        assert_eq!((text.as_str(), found), (expected, issues), "{annotation}");
    }
}

#[test]
fn namespace_and_node_keep_their_defaults() {
    let yaml = "{metadata: {name: shop, labels: {ambit.dev/mesh: enabled}, \
                annotations: {ambit.dev/exclude-inbound-ports: '9090'}}}";
    let mut issues = Vec::new();
    let namespace = reducer()
        .namespace(&serde_norway::from_str(yaml).unwrap(), &mut issues)
        .unwrap();
    assert_eq!(
        (&*namespace.name, namespace.enrolment),
        ("shop", Some(true))
    );
    assert_eq!(namespace.exclusions.inbound_ports, [9090]);

    let yaml = "{metadata: {name: worker-1.example, annotations: {ambit.dev/tunnel: pod}}}";
    let node = reducer()
        .node(&serde_norway::from_str(yaml).unwrap(), &mut issues)
        .unwrap();
    assert_eq!(
        (&*node.name, node.tunnel_to_pods),
        ("worker-1.example", true)
    );
    assert_eq!(issues, []);
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
        assert_eq!(facts.terminating, !metadata.is_empty());
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

mod services {
    use super::*;
    use crate::discovery::model::TrafficDistribution;

    fn service(spec: &str) -> (Result<ServiceFacts, FieldError>, String) {
        let yaml = format!("metadata: {{namespace: shop, name: cart}}\nspec: {{{spec}}}");
        let mut issues = Vec::new();
        let facts = reducer().service(serde_norway::from_str(&yaml).unwrap(), &mut issues);
        (facts, join(&issues))
    }

    #[test]
    fn addresses_are_the_cluster_and_external_ones() {
        let cases = [
            ("", "[]", (true, true)),
            ("clusterIP: None", "[]", (true, true)),
            (
                "clusterIP: None, clusterIPs: [None], ipFamilies: [IPv6]",
                "[]",
                (false, true),
            ),
            ("clusterIP: 10.96.0.1", "[10.96.0.1]", (true, false)),
            (
                "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']",
                "[10.96.0.1, fd00::1]",
                (true, true),
            ),
            (
                "clusterIP: 10.96.0.1, externalIPs: ['2001:db8::1']",
                "[10.96.0.1, 2001:db8::1]",
                (true, false),
            ),
        ];
        for (spec, vips, families) in cases {
            let facts = service(spec).0.unwrap();
            assert_eq!(format!("{:?}", facts.vips), vips, "{spec}");
            assert_eq!((facts.families.v4, facts.families.v6), families, "{spec}");
        }
    }

    #[test]
    fn ports_are_the_tcp_ones_with_their_targets() {
        let spec = "ports: [{name: dns, port: 53, protocol: UDP}, {name: web, port: 80, targetPort: http}, \
                    {name: alt, port: 81, targetPort: 8081, protocol: TCP}, {port: 82}]";
        let ports = service(spec).0.unwrap().ports;
        let found: Vec<_> = ports
            .iter()
            .map(|(port, target)| format!("{} {} {target:?}", port.name, port.port))
            .collect();
        assert_eq!(
            found,
            [
                "web 80 Name(\"http\")",
                "alt 81 Number(8081)",
                " 82 Number(82)"
            ]
        );
    }

    #[test]
    fn traffic_distribution_is_a_must_before_a_preference() {
        use TrafficDistribution::{Any, OnlySameNode, PreferSameNode};
        let cases = [
            ("", Any),
            ("internalTrafficPolicy: Cluster", Any),
            ("internalTrafficPolicy: Local", OnlySameNode),
            ("trafficDistribution: PreferSameNode", PreferSameNode),
            ("trafficDistribution: PreferSameZone", Any),
            ("trafficDistribution: PreferClose", Any),
            (
                "internalTrafficPolicy: Local, trafficDistribution: PreferSameNode",
                OnlySameNode,
            ),
        ];
        for (spec, expected) in cases {
            let (facts, issues) = service(spec);
            assert_eq!(
                (facts.unwrap().traffic_distribution, issues),
                (expected, String::new()),
                "{spec}"
            );
        }
        let (facts, issues) = service("trafficDistribution: Near, internalTrafficPolicy: Far");
        assert_eq!(facts.unwrap().traffic_distribution, Any);
        assert_eq!(
            issues,
            "spec.internalTrafficPolicy: \"Far\" is not \"Cluster\" or \"Local\"; \
             it counts as \"Cluster\"\n\
             spec.trafficDistribution: \"Near\" is not \"PreferSameNode\", \"PreferSameZone\" or \
             \"PreferClose\"; it counts as not set"
        );
    }

    #[test]
    fn unusable_values_are_errors_that_name_the_field() {
        let cases = [
            ("clusterIP: x", "spec.clusterIP: \"x\" is not an IP address"),
            (
                "clusterIPs: [10.96.0.1, x]",
                "spec.clusterIPs[1]: \"x\" is not an IP address",
            ),
            (
                "externalIPs: [x]",
                "spec.externalIPs[0]: \"x\" is not an IP address",
            ),
            (
                "ports: [{port: 0}]",
                "spec.ports[0].port: \"0\" is not a port between 1 and 65535",
            ),
            (
                "ports: [{port: 80}, {port: 81, targetPort: -1}]",
                "spec.ports[1].targetPort: \"-1\" is not a port between 1 and 65535",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(service(spec).0.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn slices_keep_what_may_serve_over_tcp() {
        let tcp =
            "ports: [{name: web, port: 8080}, {name: dns, port: 53, protocol: UDP}, {name: any}]";
        let cases = [
            (
                "{addresses: [10.0.0.1, 10.0.0.9], nodeName: a}",
                "web 10.0.0.1:8080 a ready",
            ),
            (
                "{addresses: ['::ffff:10.0.0.1']}",
                "web 10.0.0.1:8080 - ready",
            ),
            (
                "{addresses: [10.0.0.1], conditions: {ready: true}}",
                "web 10.0.0.1:8080 - ready",
            ),
            ("{addresses: [10.0.0.1], conditions: {ready: false}}", ""),
            (
                "{addresses: [10.0.0.1], conditions: {ready: false, serving: true}}",
                "",
            ),
            (
                "{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}",
                "web 10.0.0.1:8080 - last",
            ),
            (
                "{addresses: [10.0.0.1], conditions: {ready: false, serving: false, terminating: true}}",
                "",
            ),
            ("{addresses: []}", ""),
        ];
        for (endpoint, expected) in cases {
            let yaml = format!(
                "{{metadata: {{namespace: shop, name: cart-x, \
                 labels: {{kubernetes.io/service-name: cart}}}}, addressType: IPv4, \
                 endpoints: [{endpoint}], {tcp}}}"
            );
            let slice = reducer()
                .endpoint_slice(&serde_norway::from_str(&yaml).unwrap())
                .unwrap();
            assert_eq!(slice.service.unwrap().to_string(), "shop/cart");
            let found: Vec<_> = slice
                .endpoints
                .iter()
                .map(|Candidate { endpoint, ready }| {
                    let node = endpoint.node.as_deref().unwrap_or("-");
                    let ready = if *ready { "ready" } else { "last" };
                    format!(
                        "{} {}:{} {node} {ready}",
                        endpoint.port_name, endpoint.address, endpoint.port
                    )
                })
                .collect();
            assert_eq!(found.join(" "), expected, "{endpoint}");
        }
    }

    #[test]
    fn fqdn_slices_have_no_endpoints_and_bad_addresses_are_named() {
        let slice = |kind: &str| {
            let yaml = format!(
                "{{metadata: {{name: s}}, addressType: {kind}, ports: [{{port: 1}}], \
                 endpoints: [{{addresses: [example.org]}}]}}"
            );
            reducer().endpoint_slice(&serde_norway::from_str(&yaml).unwrap())
        };
        assert_eq!(slice("FQDN").unwrap().endpoints, []);
        assert_eq!(
            slice("IPv4").unwrap_err().to_string(),
            "endpoints[0].addresses[0]: \"example.org\" is not an IP address"
        );
    }

    use crate::discovery::facts::Candidate;
}
