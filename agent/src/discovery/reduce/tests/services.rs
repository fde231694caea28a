use super::*;
use crate::discovery::{facts::Candidate, model::TrafficDistribution};

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
    use TrafficDistribution::{Any, OnlySameNode, PreferSameNode, PreferSameZone};
    let cases = [
        ("", Any),
        ("internalTrafficPolicy: Cluster", Any),
        ("internalTrafficPolicy: Local", OnlySameNode),
        ("trafficDistribution: PreferSameNode", PreferSameNode),
        ("trafficDistribution: PreferSameZone", PreferSameZone),
        ("trafficDistribution: PreferClose", PreferSameZone),
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
    let tcp = "ports: [{name: web, port: 8080}, {name: dns, port: 53, protocol: UDP}, {name: any}]";
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
