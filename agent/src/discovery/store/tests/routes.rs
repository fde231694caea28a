use http::Request;

use super::*;
use crate::discovery::model::{BackendTarget, Found, RouteRule};

fn named(namespace: &str, name: &str, spec: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}, \
         labels: {{{labels}}}}}, spec: {{{spec}}}}}\n"
    )
}

/// With a waypoint, an address, and ports 80 (`http`) and 8080 (`other`).
fn served(namespace: &str, name: &str) -> String {
    let spec = "clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: other, port: 8080}]";
    named(namespace, name, spec, "ambit.dev/use-waypoint: w")
}

fn route(kind: &str, name: &str, parents: &str, rules: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{namespace: \
         {namespace}, name: {name}}}, spec: {{parentRefs: [{parents}], rules: [{rules}]}}}}\n"
    )
}

fn parent(service: &str, more: &str) -> String {
    let (namespace, name) = service.split_once('/').unwrap();
    format!("{{group: '', kind: Service, namespace: {namespace}, name: {name}, {more}}}")
}

fn grant(namespace: &str, from: &str, to: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: \
         {{namespace: {namespace}, name: g}}, spec: {{from: [{{group: gateway.networking.k8s.io, \
         {from}}}], to: [{{group: '', {to}}}]}}}}\n"
    )
}

fn found(store: &Store, service: &str, port: u16, client: &str) -> Option<Arc<RouteRule>> {
    let snapshot = store.snapshot();
    let (namespace, name) = service.split_once('/').unwrap();
    let service = ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    };
    let request = Request::builder().body(()).unwrap().into_parts().0;
    match snapshot
        .routes_of(&service)?
        .find(port, client, &request, "/")
    {
        Found::Rule { rule, .. } => Some(Arc::clone(rule)),
        _ => None,
    }
}

/// The name of the rule for a request of a client to a Service's port.
fn rule(store: &Store, service: &str, port: u16, client: &str) -> String {
    let rule = found(store, service, port, client);
    rule.map_or_else(
        || "none".into(),
        |it| it.name.as_deref().unwrap_or("").into(),
    )
}

/// Where a request to port 80 of `shop/cart` goes.
fn backend(store: &Store) -> String {
    let rule = found(store, "shop/cart", 80, "shop").unwrap();
    match &rule.backend(0).unwrap().target {
        BackendTarget::Service { name, port } => format!("{name}:{port}"),
        BackendTarget::Invalid(invalid) => invalid.to_string(),
    }
}

fn problems(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    let problems = snapshot.problems();
    let of_routes =
        problems.filter(|it| matches!(it.object.kind, Kind::HTTPRoute | Kind::GRPCRoute));
    of_routes
        .map(|it| format!("{}: {}", it.object, it.error))
        .collect()
}

#[test]
fn a_route_is_attached_to_the_ports_that_it_names() {
    for (more, ports) in [
        ("", &[80, 8080][..]),
        ("port: 80", &[80]),
        ("sectionName: other", &[8080]),
        ("port: 80, sectionName: http", &[80]),
        ("port: 80, sectionName: other", &[]),
        ("port: 81", &[]),
    ] {
        let store = Store::default();
        let route = route(
            "HTTPRoute",
            "shop/r",
            &parent("shop/cart", more),
            "{name: r}",
        );
        store.apply(upserts(&(route + &served("shop", "cart"))));
        for port in [80, 8080, 81] {
            let expected = if ports.contains(&port) { "r" } else { "none" };
            assert_eq!(
                rule(&store, "shop/cart", port, "shop"),
                expected,
                "{more} {port}"
            );
        }
        assert_eq!(problems(&store).is_empty(), !ports.is_empty(), "{more}");
    }
}

#[test]
fn tables_follow_routes_and_services_in_any_order() {
    let store = Store::default();
    let one = |rules| route("HTTPRoute", "shop/r", &parent("shop/cart", ""), rules);
    store.apply(upserts(&one("{name: first}")));
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "none");
    assert!(problems(&store)[0].contains("spec.parentRefs[0]: there is no Service shop/cart"));

    let mut updates = store.subscribe();
    store.apply(upserts(&served("shop", "cart")));
    assert!(updates.try_recv().unwrap().routes_changed);
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "first");
    assert_eq!(problems(&store), [""; 0]);

    store.apply(upserts(&one("{name: second}")));
    assert!(updates.try_recv().unwrap().routes_changed);
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "second");
    // The same again is no news.
    store.apply(upserts(&one("{name: second}")));
    assert!(updates.try_recv().is_err());

    // The other kind of that name is another object.
    let grpc = route(
        "GRPCRoute",
        "shop/r",
        &parent("shop/cart", "port: 8080"),
        "{name: grpc}",
    );
    store.apply(upserts(&grpc));
    store.apply(remove(Kind::GRPCRoute, "shop/r"));
    assert_eq!(rule(&store, "shop/cart", 8080, "shop"), "second");

    let elsewhere = route(
        "HTTPRoute",
        "shop/r",
        &parent("shop/store", ""),
        "{name: third}",
    );
    store.apply(upserts(&(elsewhere + &served("shop", "store"))));
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "none");
    assert_eq!(rule(&store, "shop/store", 80, "shop"), "third");
    store.apply(remove(Kind::HTTPRoute, "shop/r"));
    assert_eq!(rule(&store, "shop/store", 80, "shop"), "none");

    store.apply(upserts(&one("{name: last}")));
    store.apply(remove(Kind::Service, "shop/cart"));
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "none");
}

#[test]
fn a_service_must_have_an_address_and_a_waypoint_for_routes_to_apply() {
    let ports = "ports: [{port: 80}]";
    let cases = [
        (
            format!("clusterIP: None, {ports}"),
            "ambit.dev/use-waypoint: w",
            "none",
            "headless",
        ),
        (
            format!("clusterIP: 10.96.0.1, {ports}"),
            "",
            "r",
            "has no waypoint",
        ),
    ];
    for (spec, labels, expected, problem) in cases {
        let store = Store::default();
        let route = route("HTTPRoute", "shop/r", &parent("shop/cart", ""), "{name: r}");
        store.apply(upserts(&(named("shop", "cart", &spec, labels) + &route)));
        assert_eq!(rule(&store, "shop/cart", 80, "shop"), expected);
        assert!(
            problems(&store)[0].contains(problem),
            "{:?}",
            problems(&store)
        );
        // Once it has both, nothing is wrong.
        store.apply(upserts(&served("shop", "cart")));
        assert_eq!(problems(&store), [""; 0]);
    }
}

#[test]
fn what_a_route_refers_to_is_followed() {
    let store = Store::default();
    let rules = "{backendRefs: [{name: canary, port: 80}]}";
    let route = route("HTTPRoute", "shop/r", &parent("shop/cart", ""), rules);
    store.apply(upserts(&(route + &served("shop", "cart"))));
    let missing = "there is no Service shop/canary: create it, or refer to another";
    assert_eq!(backend(&store), missing);
    assert_eq!(
        problems(&store),
        [format!(
            "HTTPRoute shop/r: spec.rules[0].backendRefs[0]: {missing}; until then requests that would go \
             there are answered with an error"
        )]
    );
    store.apply(upserts(&served("shop", "canary")));
    assert_eq!(backend(&store), "shop/canary:80");
    assert_eq!(problems(&store), [""; 0]);
    let other = named(
        "shop",
        "canary",
        "clusterIP: 10.96.0.2, ports: [{port: 81}]",
        "",
    );
    store.apply(upserts(&other));
    assert_eq!(
        backend(&store),
        "Service shop/canary has no TCP port 80: refer to one that it has"
    );
    store.apply(remove(Kind::Service, "shop/canary"));
    assert_eq!(backend(&store), missing);
}

#[test]
fn another_namespace_has_to_allow_references() {
    let refused = "Service other/b is in another namespace: have a ReferenceGrant there allow HTTPRoutes \
                   of namespace shop to refer to it";
    let kind = "kind: HTTPRoute, namespace: shop";
    for (from, to, expected) in [
        (kind, "kind: Service", "other/b:80"),
        (kind, "kind: Service, name: b", "other/b:80"),
        (kind, "kind: Service, name: ''", "other/b:80"),
        (kind, "kind: Service, name: c", refused),
        (kind, "kind: Secret", refused),
        ("kind: GRPCRoute, namespace: shop", "kind: Service", refused),
        (
            "kind: HTTPRoute, namespace: other",
            "kind: Service",
            refused,
        ),
    ] {
        let store = Store::default();
        let rules = "{backendRefs: [{namespace: other, name: b, port: 80}]}";
        let route = route("HTTPRoute", "shop/r", &parent("shop/cart", ""), rules);
        store.apply(upserts(
            &(route + &served("shop", "cart") + &served("other", "b")),
        ));
        assert_eq!(backend(&store), refused, "{from} {to}");
        // One of another namespace allows nothing.
        store.apply(upserts(&grant("third", from, to)));
        assert_eq!(backend(&store), refused, "{from} {to}");
        store.apply(upserts(&grant("other", from, to)));
        assert_eq!(backend(&store), expected, "{from} {to}");
        store.apply(remove(Kind::ReferenceGrant, "other/g"));
        assert_eq!(backend(&store), refused, "{from} {to}");
    }
}

#[test]
fn a_consumers_route_may_refer_to_what_its_clients_ask_for() {
    let store = Store::default();
    let rules = "{name: consumer, backendRefs: [{namespace: shop, name: cart, port: 80}]}";
    let consumer = route("HTTPRoute", "front/r", &parent("shop/cart", ""), rules);
    let own = route(
        "HTTPRoute",
        "shop/r",
        &parent("shop/cart", ""),
        "{name: producer}",
    );
    store.apply(upserts(&(consumer + &own + &served("shop", "cart"))));
    assert_eq!(rule(&store, "shop/cart", 80, "front"), "consumer");
    assert_eq!(rule(&store, "shop/cart", 80, "shop"), "producer");
    assert_eq!(rule(&store, "shop/cart", 80, "elsewhere"), "producer");
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_mirror_is_resolved_as_a_backend_is() {
    let store = Store::default();
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}";
    let rules = format!("{{filters: [{mirror}], backendRefs: [{{name: cart, port: 80}}]}}");
    let route = route("HTTPRoute", "shop/r", &parent("shop/cart", ""), &rules);
    store.apply(upserts(&(route + &served("shop", "cart"))));
    let is_there = |store: &Store| {
        let rule = found(store, "shop/cart", 80, "shop").unwrap();
        matches!(
            rule.filters.mirrors[0].target,
            BackendTarget::Service { .. }
        )
    };
    assert!(!is_there(&store));
    assert_eq!(problems(&store).len(), 1);
    store.apply(upserts(&served("shop", "shadow")));
    assert!(is_there(&store));
    assert_eq!(backend(&store), "shop/cart:80");
}
