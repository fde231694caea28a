use super::*;

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
        (
            "ambit.dev/mesh: disabled, gateway.networking.k8s.io/gateway-class-name: ambit-waypoint",
            Some(false),
            Enrolment::Waypoint,
        ),
        (
            "gateway.networking.k8s.io/gateway-class-name: ambit-waypoint",
            None,
            Enrolment::Waypoint,
        ),
        // It asks for more.
        (
            "ambit.dev/mesh: enabled, gateway.networking.k8s.io/gateway-class-name: ambit-waypoint",
            Some(true),
            Enrolment::Enrolled,
        ),
        (
            "ambit.dev/mesh: disabled, gateway.networking.k8s.io/gateway-class-name: istio-waypoint",
            Some(false),
            Enrolment::Disabled,
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
fn unknown_enrolment_of_a_namespace_is_an_error_unless_another_label_decides() {
    let mesh = "metadata.labels[ambit.dev/mesh]: \"on\" is not \"enabled\" or \"disabled\"";
    let cases = [
        ("ambit.dev/mesh: 'on'", Err(mesh), ""),
        (
            "ambit.dev/mesh: 'on', istio.io/dataplane-mode: ambient",
            Ok(Some(true)),
            mesh,
        ),
        ("ambit.dev/mesh: disabled", Ok(Some(false)), ""),
        ("", Ok(None), ""),
    ];
    for (labels, expected, expected_issues) in cases {
        let yaml = format!("{{metadata: {{name: shop, labels: {{{labels}}}}}}}");
        let mut issues = Vec::new();
        let facts = reducer().namespace(&serde_norway::from_str(&yaml).unwrap(), &mut issues);
        let enrolment = facts.map(|facts| facts.enrolment);
        let expected = expected.map_err(str::to_owned);
        assert_eq!(enrolment.map_err(|e| e.to_string()), expected, "{labels}");
        let issues: Vec<_> = issues.iter().map(ToString::to_string).collect();
        assert_eq!(issues.join("\n"), expected_issues, "{labels}");
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
fn the_splice_is_left_out_by_one_word() {
    let issue =
        "metadata.annotations[ambit.dev/splice]: \"off\" is not \"disabled\"; it counts as not set";
    for (annotations, expected, expected_issues) in [
        ("", false, ""),
        ("ambit.dev/splice: disabled", true, ""),
        ("ambit.dev/splice: 'off'", false, issue),
    ] {
        let (facts, issues) = pod_with(&format!("annotations: {{{annotations}}}"), "", "");
        assert_eq!(facts.unwrap().workload.exclusions.no_splice, expected);
        assert_eq!(issues, expected_issues, "{annotations}");
    }
}

#[test]
fn exclusions_beyond_the_limit_are_ignored_and_said_to_be() {
    let list = |ports: std::ops::RangeInclusive<u16>| {
        let ports: Vec<_> = ports.map(|port| port.to_string()).collect();
        ports.join(",")
    };
    let issue = "metadata.annotations[ambit.dev/exclude-inbound-ports]: has 40000 entries, and 256 \
                 is the most; those after the first 256 are ignored, so their traffic is captured";
    for (count, expected) in [(256, ""), (40_000, issue)] {
        let metadata = format!(
            "annotations: {{ambit.dev/exclude-inbound-ports: '{}'}}",
            list(1..=count)
        );
        let (facts, issues) = pod_with(&metadata, "", "");
        let first: Vec<u16> = (1..=256).collect();
        assert_eq!(facts.unwrap().workload.exclusions.inbound_ports, first);
        assert_eq!(issues, expected, "{count}");
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
