use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::discovery::{
    reduce::Reducer,
    store::{Change, Store},
};

/// Reads objects into a store.
fn store(documents: impl IntoIterator<Item = serde_json::Value>) -> Store {
    let mut reducer = Reducer::new("cluster.local");
    let documents = documents.into_iter();
    let text: Vec<_> = documents.map(|document| document.to_string()).collect();
    let manifest = crate::discovery::manifest::parse(
        &text.join("\n---\n"),
        crate::discovery::manifest::Format::Yaml,
        &mut reducer,
    )
    .unwrap();
    assert_eq!(manifest.errors, []);
    let store = Store::default();
    store.apply(
        manifest
            .objects
            .into_iter()
            .map(|parsed| Change::Upsert(parsed.object)),
    );
    store
}

/// Two nodes, a and b: pods `a-1` and `b-1` of the mesh and `b-out` outside it; services over them.
fn snapshot() -> Arc<Snapshot> {
    let documents = [
        namespace("shop", "enabled"),
        namespace("legacy", "disabled"),
        pod("shop", "a-1", "a", "10.77.1.1", "10.78.0.1"),
        pod("shop", "b-1", "b", "10.77.2.1", "10.78.0.2"),
        pod("legacy", "b-out", "b", "10.77.2.9", "10.78.0.2"),
        service("all", "10.96.0.1", json!({})),
        service(
            "near",
            "10.96.0.2",
            json!({ "trafficDistribution": "PreferSameNode" }),
        ),
        service(
            "local",
            "10.96.0.3",
            json!({ "internalTrafficPolicy": "Local" }),
        ),
        service("empty", "10.96.0.4", json!({})),
        slice(
            "all",
            &[("10.77.1.1", "a"), ("10.77.2.1", "b"), ("10.77.2.9", "b")],
        ),
        slice("near", &[("10.77.1.1", "a"), ("10.77.2.1", "b")]),
        slice("local", &[("10.77.1.1", "a")]),
    ];
    store(documents).snapshot()
}

/// A pod of service account `web`, on a node.
fn client<'a>(node: &'a str, identity: &'a Identity) -> Client<'a> {
    Client {
        node,
        identity,
        missing: MissingWaypoint::Deny,
        out_of_reach: &[],
    }
}

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web")
}

fn namespace(name: &str, mesh: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "ambit.dev/mesh": mesh } },
    })
}

fn pod(namespace: &str, name: &str, node: &str, ip: &str, host: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "uid": name },
        "spec": { "nodeName": node, "containers": [] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "hostIP": host, "hostIPs": [{ "ip": host }],
        },
    })
}

fn service(name: &str, vip: &str, mut spec: serde_json::Value) -> serde_json::Value {
    spec["clusterIP"] = vip.into();
    spec["clusterIPs"] = json!([vip]);
    spec["ports"] = json!([{ "port": 80, "targetPort": 8080, "protocol": "TCP" }]);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": name }, "spec": spec,
    })
}

fn slice(service: &str, endpoints: &[(&str, &str)]) -> serde_json::Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node)| json!({ "addresses": [ip], "nodeName": node }))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": service,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "port": 8080 }],
    })
}

/// Routes, and gives the result as text.
fn routed(node: &str, original: &str, choice: usize) -> String {
    let original = original.parse().unwrap();
    match route(&snapshot(), &client(node, &web()), original, |_| choice) {
        Ok(Request { address, route, .. }) => match route {
            Route::Local(pod) => format!("local {} {address}", pod.name.name),
            Route::Tunnel { workload, via } => {
                format!("tunnel {} {address} via {via}", workload.name.name)
            }
            Route::Plain(_) => format!("plain {address}"),
            Route::Waypoint { .. } => unreachable!("there is none"),
        },
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_pod_is_reached_where_it_runs() {
    for (node, original, expected) in [
        ("a", "10.77.1.1:8080", "local a-1 10.77.1.1:8080"),
        (
            "b",
            "10.77.1.1:8080",
            "tunnel a-1 10.77.1.1:8080 via 10.78.0.1:15008",
        ),
        (
            "a",
            "10.77.2.1:1",
            "tunnel b-1 10.77.2.1:1 via 10.78.0.2:15008",
        ),
        ("a", "10.77.2.9:80", "plain 10.77.2.9:80"),
        ("a", "192.0.2.1:443", "plain 192.0.2.1:443"),
    ] {
        assert_eq!(routed(node, original, 0), expected, "{node} to {original}");
    }
}

#[test]
fn a_service_leads_to_the_chosen_endpoint_and_its_own_port() {
    for (choice, expected) in [
        (0, "local a-1 10.77.1.1:8080"),
        (1, "tunnel b-1 10.77.2.1:8080 via 10.78.0.2:15008"),
        (2, "plain 10.77.2.9:8080"),
        // A choice that is out of range takes the last.
        (9, "plain 10.77.2.9:8080"),
    ] {
        assert_eq!(
            routed("a", "10.96.0.1:80", choice),
            expected,
            "choice {choice}"
        );
    }
    // Another port of the VIP is nobody's service.
    assert_eq!(routed("a", "10.96.0.1:81", 0), "plain 10.96.0.1:81");
}

#[test]
fn a_service_may_prefer_or_demand_the_same_node() {
    for (node, vip, expected) in [
        ("a", "10.96.0.2:80", "local a-1 10.77.1.1:8080"),
        (
            "c",
            "10.96.0.2:80",
            "tunnel b-1 10.77.2.1:8080 via 10.78.0.2:15008",
        ),
        ("a", "10.96.0.3:80", "local a-1 10.77.1.1:8080"),
        (
            "b",
            "10.96.0.3:80",
            "service shop/local asks for endpoints on this node only (internalTrafficPolicy: \
             Local), and none is ready here for port 80",
        ),
        (
            "a",
            "10.96.0.4:80",
            "service shop/empty has no ready endpoint for port 80",
        ),
    ] {
        assert_eq!(routed(node, vip, 1), expected, "{node} to {vip}");
    }
}

/// A waypoint `w` for some traffic, at some addresses; service `all` and pod `b-1` in the namespace
/// that uses it.
fn with_waypoint(serves: &str, addresses: &[(&str, &str)]) -> Arc<Snapshot> {
    let mut namespace = namespace("shop", "enabled");
    namespace["metadata"]["labels"]["ambit.dev/use-waypoint"] = "w".into();
    let mut own = slice("w", addresses);
    own["ports"] = json!([{ "name": "hbone", "port": 15008 }]);
    let mut behind = service("w", "10.96.0.9", json!({}));
    behind["spec"]["ports"] = json!([{ "name": "hbone", "port": 15008 }]);
    behind["metadata"]["labels"] = json!({ "ambit.dev/use-waypoint": "none" });
    let documents = [
        namespace,
        pod("shop", "b-1", "b", "10.77.2.1", "10.78.0.2"),
        service("all", "10.96.0.1", json!({})),
        slice("all", &[("10.77.2.1", "b")]),
        gateway("w", serves),
        behind,
        own,
    ];
    store(documents).snapshot()
}

fn gateway(name: &str, serves: &str) -> serde_json::Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "namespace": "shop", "name": name, "labels": { "istio.io/waypoint-for": serves },
        },
        "spec": {
            "gatewayClassName": "ambit-waypoint",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
    })
}

#[test]
fn a_waypoint_before_a_pod_goes_past_the_pods_own() {
    let mut namespace = namespace("shop", "enabled");
    namespace["metadata"]["labels"]["ambit.dev/use-waypoint"] = "of-pods".into();
    let mut all = service("all", "10.96.0.1", json!({}));
    all["metadata"]["labels"] = json!({ "ambit.dev/use-waypoint": "of-service" });
    let snapshot = store([
        namespace,
        pod("shop", "b-1", "b", "10.77.2.1", "10.78.0.2"),
        pod("shop", "b-2", "b", "10.77.2.2", "10.78.0.2"),
        all,
        slice("all", &[("10.77.2.1", "b")]),
        gateway("of-pods", "workload"),
        gateway("of-service", "service"),
    ])
    .snapshot();
    let identity = |account: &str| Identity::new("cluster.local", "shop", account);
    for (client, pod, expected) in [
        ("of-service", "10.77.2.1", None),
        ("of-pods", "10.77.2.1", None),
        ("web", "10.77.2.1", Some("of-pods")),
        // It stands before others only.
        ("of-service", "10.77.2.2", Some("of-pods")),
    ] {
        let pod = snapshot.workload_by_address(pod.parse().unwrap()).unwrap();
        let found = waypoint_for(&snapshot, &identity(client), None, Some(pod));
        assert_eq!(
            found.map(|it| &*it.name.name),
            expected,
            "{client} {}",
            pod.name
        );
    }
}

#[test]
fn a_waypoint_is_on_the_way_to_what_it_is_for() {
    const VIP: &str = "10.96.0.1:80";
    const POD: &str = "10.77.2.1:8080";
    const DIRECT: &str = "b-1 10.77.2.1:8080";
    const MISSING: &str = "no endpoint of waypoint shop/w is ready (--waypoint-missing=allow would \
                           send connections without it)";
    let ready = [("10.77.3.1", "c")].as_slice();
    let own = Identity::new("cluster.local", "shop", "w");
    let allow = |client: Client<'static>| Client {
        missing: MissingWaypoint::Allow,
        ..client
    };
    let both = [("10.77.3.1", "c"), ("10.77.3.2", "c")].as_slice();
    let [first, second] =
        ["10.77.3.1:15008", "10.77.3.2:15008"].map(|it| it.parse::<SocketAddr>().unwrap());
    let tried: &'static [SocketAddr] = Box::leak(Box::new([first, second]));
    let without = |client: Client<'static>, tried: &'static [SocketAddr]| Client {
        out_of_reach: tried,
        ..client
    };
    let web: &'static Identity = Box::leak(Box::new(web()));
    let w: &'static Identity = Box::leak(Box::new(own));
    let usual = client("a", web);
    for (serves, addresses, client, to, expected) in [
        (
            "service",
            ready,
            usual,
            VIP,
            "waypoint for 10.96.0.1:80 via 10.77.3.1:15008",
        ),
        ("service", ready, usual, POD, DIRECT),
        (
            "workload",
            ready,
            usual,
            POD,
            "waypoint for b-1 10.77.2.1:8080 via 10.77.3.1:15008",
        ),
        // The pod demands it, whatever name it is called by.
        (
            "workload",
            ready,
            usual,
            VIP,
            "waypoint for b-1 10.77.2.1:8080 via 10.77.3.1:15008",
        ),
        (
            "all",
            ready,
            usual,
            VIP,
            "waypoint for 10.96.0.1:80 via 10.77.3.1:15008",
        ),
        (
            "all",
            ready,
            usual,
            POD,
            "waypoint for b-1 10.77.2.1:8080 via 10.77.3.1:15008",
        ),
        ("none", ready, usual, VIP, DIRECT),
        ("none", ready, usual, POD, DIRECT),
        ("all", ready, self::client("a", w), VIP, DIRECT),
        ("all", ready, self::client("a", w), POD, DIRECT),
        ("service", &[], usual, VIP, MISSING),
        ("workload", &[], usual, POD, MISSING),
        (
            "service",
            &[],
            allow(usual),
            VIP,
            "b-1 10.77.2.1:8080 without shop/w",
        ),
        (
            "workload",
            &[],
            allow(usual),
            POD,
            "b-1 10.77.2.1:8080 without shop/w",
        ),
        (
            "service",
            ready,
            without(allow(usual), &tried[..1]),
            VIP,
            "b-1 10.77.2.1:8080 without shop/w",
        ),
        ("service", ready, without(usual, &tried[..1]), VIP, MISSING),
        (
            "service",
            both,
            without(usual, &tried[..1]),
            VIP,
            "waypoint for 10.96.0.1:80 via 10.77.3.2:15008",
        ),
        ("service", both, without(usual, tried), VIP, MISSING),
    ] {
        let snapshot = with_waypoint(serves, addresses);
        let told = match route(&snapshot, &client, to.parse().unwrap(), |_| 0) {
            Err(error) => error.to_string(),
            Ok(request) => {
                let pod = request
                    .route
                    .workload()
                    .map(|pod| format!("{} ", pod.name.name));
                let end = format!("{}{}", pod.unwrap_or_default(), request.address);
                match (&request.route, &request.waypoint) {
                    (Route::Waypoint { via, .. }, Some(_)) => {
                        format!("waypoint for {end} via {via}")
                    }
                    (_, Some(waypoint)) => format!("{end} without {waypoint}"),
                    (_, None) => end,
                }
            }
        };
        assert_eq!(told, expected, "{serves}, {client:?} to {to}");
    }
}

proptest! {
    /// Whatever is dialled, from wherever, and whatever is chosen.
    #[test]
    fn a_route_keeps_what_was_dialled_or_takes_an_endpoint_and_fits_the_node(
        node in "[abc]",
        third in 0_u8..4,
        fourth in 0_u8..10,
        is_vip in any::<bool>(),
        port in prop_oneof![Just(80), Just(8080), any::<u16>()],
        choice in any::<usize>(),
    ) {
        let address = if is_vip { [10, 96, 0, fourth] } else { [10, 77, third, fourth] };
        let original = SocketAddr::from((address, port));
        let snapshot = snapshot();
        let web = web();
        let Ok(request) = route(&snapshot, &client(&node, &web), original, |_| choice) else {
            prop_assert!(is_vip, "only a service can be without endpoints");
            return Ok(());
        };
        match &request.service {
            None => prop_assert_eq!(request.address, original),
            Some(service) => {
                let mut endpoints = service.endpoints.iter();
                let is_one = endpoints.any(|endpoint| {
                    SocketAddr::new(endpoint.address, endpoint.port) == request.address
                });
                prop_assert!(is_one, "{} is no endpoint of {}", request.address, service.name);
            }
        }
        let holder = snapshot.workload_by_address(request.address.ip());
        prop_assert_eq!(request.route.workload(), holder);
        match &request.route {
            Route::Local(pod) => prop_assert!(pod.is_enrolled() && *pod.node == *node),
            Route::Tunnel { workload, via } => {
                prop_assert!(workload.is_enrolled() && *workload.node != *node);
                prop_assert_eq!(via.port(), TUNNEL_PORT);
                prop_assert!(workload.node_addresses.contains(&via.ip()));
            }
            Route::Waypoint { .. } => prop_assert!(false, "there is none"),
            Route::Plain(pod) => prop_assert!(pod.as_ref().is_none_or(|pod| !pod.is_enrolled())),
        }
    }
}
