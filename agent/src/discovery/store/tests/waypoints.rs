//! Which waypoints there are, where, and what is wrong with them.

use super::*;

fn on_nodes(yaml: &str) -> Arc<Snapshot> {
    let store = Store::default();
    store.place_waypoints(Placement::Nodes);
    store.apply(upserts(yaml));
    store.snapshot()
}

fn node_with(name: &str, address: &str) -> String {
    let status = format!("status: {{addresses: [{{type: InternalIP, address: {address}}}]}}");
    format!("---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, {status}}}\n")
}

/// Each waypoint with its endpoints, and each problem.
fn told(snapshot: &Snapshot) -> Vec<String> {
    let waypoints = snapshot.waypoints().map(|waypoint| {
        let endpoints = waypoint.endpoints.iter();
        let endpoints = endpoints.map(|it| format!(" {}:{}", it.address, it.port));
        format!("{waypoint}{}", endpoints.collect::<String>())
    });
    let problems = snapshot.problems();
    let problems = problems.map(|it| format!("{}: {}", it.object, it.error));
    waypoints.chain(problems).collect()
}

#[test]
fn a_waypoint_runs_on_the_node_that_it_asks_for_or_the_first_and_two_of_one_port_are_told() {
    let nodes = node_with("a", "192.0.2.1") + &node_with("b", "192.0.2.2");
    let on_b = "ambit.dev/waypoint-node: b";
    let far = "ambit.dev/waypoint-port: '16000'";
    let label = namespace("shop", "labels: {ambit.dev/use-waypoint: v}");
    for (yaml, expected) in [
        (label.clone(), vec!["shop/v 192.0.2.1:15088"]),
        (
            gateway("v", "all", on_b) + &gateway("w", "all", ""),
            vec!["shop/v 192.0.2.2:15088", "shop/w 192.0.2.1:15088"],
        ),
        (
            gateway("v", "all", "") + &gateway("w", "all", far),
            vec!["shop/v 192.0.2.1:15088", "shop/w 192.0.2.1:16000"],
        ),
        // A Gateway goes before the label.
        (
            label + &gateway("v", "all", on_b),
            vec!["shop/v 192.0.2.2:15088"],
        ),
        (
            gateway("v", "all", "") + &gateway("w", "all", "ambit.dev/waypoint-port: '15090'"),
            vec![
                "shop/v 192.0.2.1:15088",
                "shop/w",
                "Gateway shop/w: metadata.annotations[ambit.dev/waypoint-port]: ports 15090 to \
                 15092 of node a are asked for (HBONE, metrics, readiness), and waypoint shop/v \
                 has one of them: choose another port or node",
            ],
        ),
        (
            gateway("v", "all", "ambit.dev/waypoint-node: c"),
            vec![
                "shop/v",
                "Gateway shop/v: metadata.annotations[ambit.dev/waypoint-node]: there is no Node \
                 c, and no pod on one: name another",
            ],
        ),
        (
            namespace("shop", "labels: {istio.io/use-waypoint: v}"),
            vec![
                "Namespace shop: metadata.labels: use-waypoint: there is no Gateway shop/v: \
                 connections go there without a waypoint; create it with gatewayClassName \
                 \"ambit-waypoint\", or name another",
            ],
        ),
    ] {
        assert_eq!(
            told(&on_nodes(&(nodes.clone() + &yaml))),
            expected,
            "{yaml}"
        );
    }
}

#[test]
fn in_a_cluster_a_waypoint_is_where_its_service_leads() {
    let store = Store::default();
    store.apply(upserts(&gateway("cart", "all", "")));
    assert_eq!(told(&store.snapshot()), ["shop/cart"]);
    let slice = slice("s", "{addresses: [10.0.0.7]}").replace("name: web", "name: hbone");
    let mut updates = store.subscribe();
    store.apply(upserts(
        &(service("ports: [{port: 15008, name: hbone}]") + &slice),
    ));
    assert_eq!(told(&store.snapshot()), ["shop/cart 10.0.0.7:8080"]);
    assert!(updates.try_recv().unwrap().waypoints_changed);
    store.apply(remove(Kind::Gateway, "shop/cart"));
    assert!(told(&store.snapshot()).is_empty());
    assert!(updates.try_recv().unwrap().waypoints_changed);
}

#[test]
fn a_label_of_pod_or_service_wins_over_the_namespace() {
    let base = namespace("shop", "labels: {ambit.dev/use-waypoint: w}")
        + &gateway("v", "all", "")
        + &gateway("w", "all", "ambit.dev/waypoint-port: '16000'");
    for (label, expected) in [
        ("", Some("w")),
        ("ambit.dev/use-waypoint: v", Some("v")),
        ("istio.io/use-waypoint: v", Some("v")),
        ("ambit.dev/use-waypoint: none", None),
        (
            "istio.io/use-waypoint: v, istio.io/use-waypoint-namespace: none-such",
            None,
        ),
    ] {
        let labels = format!("uid: u, labels: {{{label}}}");
        let labelled =
            service("clusterIP: 10.96.0.1").replace("name: cart", &format!("name: cart, {labels}"));
        let snapshot = on_nodes(&(base.clone() + &pod("p", "10.0.0.1", &labels, "") + &labelled));
        let workload = snapshot.workload_by_address([10, 0, 0, 1].into()).unwrap();
        let service = snapshot.services().next().unwrap();
        let of = [
            snapshot.waypoint_of_workload(workload),
            snapshot.waypoint_of_service(service),
        ];
        let names = of.map(|it| it.map(|waypoint| waypoint.name.name.to_string()));
        assert_eq!(
            names,
            [expected.map(str::to_owned), expected.map(str::to_owned)],
            "{label}"
        );
    }
}
