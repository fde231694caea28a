use super::*;

fn endpoints(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    let service = snapshot
        .service(&key(Kind::Service, "shop/cart").name)
        .unwrap();
    let text = |endpoint: &crate::discovery::model::Endpoint| {
        let node = endpoint.node.as_deref().unwrap_or("-");
        format!(
            "{} {}:{} {node}",
            endpoint.port_name, endpoint.address, endpoint.port
        )
    };
    service.endpoints.iter().map(text).collect()
}

#[test]
fn service_is_found_by_each_of_its_addresses_and_ports() {
    let store = Store::default();
    let ports = "ports: [{port: 80, name: web}, {port: 53, name: dns, protocol: UDP}]";
    store.apply(upserts(&service(&format!(
        "clusterIPs: [10.96.0.1, 'fd00::1'], {ports}"
    ))));
    let found = |destination: &str| {
        store
            .snapshot()
            .service_by_vip(destination.parse().unwrap())
            .is_some()
    };
    let cases = [
        ("10.96.0.1:80", true),
        ("[fd00::1]:80", true),
        ("10.96.0.1:53", false),
        ("10.96.0.2:80", false),
    ];
    for (destination, expected) in cases {
        assert_eq!(found(destination), expected, "{destination}");
    }
    store.apply(upserts(&service(&format!(
        "clusterIPs: [10.96.0.2], {ports}"
    ))));
    assert_eq!(
        (found("10.96.0.1:80"), found("10.96.0.2:80")),
        (false, true)
    );
    store.apply(remove(Kind::Service, "shop/cart"));
    assert!(!found("10.96.0.2:80"));
}

const SELECTING: &str =
    "clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{port: 80, name: web, targetPort: http}]";

#[test]
fn service_without_slices_has_the_ready_pods_that_it_selects() {
    let app = "labels: {app: cart, tier: back}";
    let not_ready = "conditions: [{type: Ready, status: 'False'}]";
    let deleted = "labels: {app: cart}, deletionTimestamp: '2026-01-01T00:00:00Z'";
    let one = pod("one", "10.0.0.1", app, "");
    let cases = [
        ("none", String::new(), &[][..]),
        ("one", one.clone(), &["web 10.0.0.1:8080 a"][..]),
        (
            "another label",
            pod("one", "10.0.0.1", "labels: {app: till}", ""),
            &[],
        ),
        ("not ready", pod("one", "10.0.0.1", app, not_ready), &[]),
        ("no address yet", pod("one", "", app, ""), &[]),
        ("another family", pod("one", "fd00::1", app, ""), &[]),
        (
            "only one that goes",
            pod("one", "10.0.0.1", deleted, ""),
            &["web 10.0.0.1:8080 a"],
        ),
        (
            "one that goes beside another",
            one.clone() + &pod("two", "10.0.0.2", deleted, ""),
            &["web 10.0.0.1:8080 a"],
        ),
        ("ended", pod("one", "10.0.0.1", app, "phase: Failed"), &[]),
    ];
    for (case, pods, expected) in cases {
        for order in [[&service(SELECTING), &pods], [&pods, &service(SELECTING)]] {
            let store = Store::default();
            order.iter().for_each(|yaml| store.apply(upserts(yaml)));
            assert_eq!(endpoints(&store), expected, "{case}");
        }
    }
}

#[test]
fn target_ports_are_resolved_at_each_pod() {
    let cases = [
        ("targetPort: http", "web 10.0.0.1:8080 a"),
        ("targetPort: 9000", "web 10.0.0.1:9000 a"),
        ("", "web 10.0.0.1:80 a"),
        ("targetPort: other", ""),
    ];
    for (target, expected) in cases {
        let store = Store::default();
        let ports = format!("ports: [{{port: 80, name: web, {target}}}]");
        store.apply(upserts(
            &(service(&format!(
                "clusterIP: None, selector: {{app: cart}}, {ports}"
            )) + &pod("one", "10.0.0.1", "labels: {app: cart}", "")),
        ));
        assert_eq!(endpoints(&store).join(" "), expected, "{target}");
    }
}

#[test]
fn selected_pods_come_and_go_one_by_one() {
    let store = Store::default();
    store.apply(upserts(&service(SELECTING)));
    store.apply(upserts(&pod("one", "10.0.0.1", "labels: {app: cart}", "")));
    store.apply(upserts(&pod("two", "10.0.0.2", "labels: {app: cart}", "")));
    assert_eq!(
        endpoints(&store),
        ["web 10.0.0.1:8080 a", "web 10.0.0.2:8080 a"]
    );
    store.apply(upserts(&pod("one", "10.0.0.1", "labels: {app: till}", "")));
    assert_eq!(endpoints(&store), ["web 10.0.0.2:8080 a"]);
    store.apply(remove(Kind::Pod, "shop/two"));
    assert_eq!(endpoints(&store), [""; 0]);
}

#[test]
fn slices_replace_selected_pods_for_as_long_as_there_are_any() {
    let store = Store::default();
    store.apply(upserts(
        &(service(SELECTING) + &pod("one", "10.0.0.1", "labels: {app: cart}", "")),
    ));
    store.apply(upserts(&slice(
        "s1",
        "{addresses: [10.0.0.7]}, {addresses: [10.0.0.8]}",
    )));
    store.apply(upserts(&slice(
        "s2",
        "{addresses: [10.0.0.8]}, {addresses: [10.0.0.9]}",
    )));
    assert_eq!(
        endpoints(&store),
        [
            "web 10.0.0.7:8080 -",
            "web 10.0.0.8:8080 -",
            "web 10.0.0.9:8080 -"
        ]
    );
    store.apply(remove(Kind::EndpointSlice, "shop/s1"));
    store.apply(upserts(&slice("s2", "")));
    assert_eq!(endpoints(&store), [""; 0]);
    store.apply(upserts(&pod("two", "10.0.0.2", "labels: {app: cart}", "")));
    store.apply(remove(Kind::EndpointSlice, "shop/s2"));
    assert_eq!(
        endpoints(&store),
        ["web 10.0.0.1:8080 a", "web 10.0.0.2:8080 a"]
    );
}

#[test]
fn terminating_endpoints_serve_where_none_is_ready() {
    let last = "conditions: {ready: false, serving: true, terminating: true}";
    let both = format!(
        "{{addresses: [10.0.0.1], nodeName: a}}, {{addresses: [10.0.0.2], nodeName: b, {last}}}"
    );
    let going = format!("{{addresses: [10.0.0.2], nodeName: b, {last}}}");
    let ports = "ports: [{port: 80, name: web}]";
    let cases = [
        ("", &going, &["web 10.0.0.2:8080 b"][..]),
        ("", &both, &["web 10.0.0.1:8080 a"]),
        (
            "internalTrafficPolicy: Local,",
            &both,
            &["web 10.0.0.1:8080 a", "web 10.0.0.2:8080 b"],
        ),
    ];
    for (policy, slices, expected) in cases {
        let store = Store::default();
        store.apply(upserts(
            &(service(&format!("{policy} {ports}")) + &slice("s", slices)),
        ));
        assert_eq!(endpoints(&store), expected, "{policy}");
    }
}

#[test]
fn endpoints_of_ports_that_the_service_lacks_are_left_out() {
    let store = Store::default();
    store.apply(upserts(
        &(service("ports: [{port: 80, name: other}]") + &slice("s", "{addresses: [10.0.0.1]}")),
    ));
    assert_eq!(endpoints(&store), [""; 0]);
}
