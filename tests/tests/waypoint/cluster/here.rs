//! A waypoint's pod, and pods of its own node.

use std::sync::Arc;

use lab::{Kubelet, Lab, Mesh, PodSpec, Result, Way, eventually};

use super::{installed, through};
use crate::shop::{DEADLINE, Shop, gateway, use_waypoint};

/// No plaintext, whoever sends it.
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
     metadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

#[test]
fn a_waypoint_is_known_to_pods_of_its_node_by_its_interface_and_to_others_by_its_certificate()
-> Result<()> {
    let lab = Lab::builder("here").build()?;
    let mut shop = Shop::open(&lab)?;
    let api = Arc::new(installed(&lab)?);
    // Whoever says to be of a waypoint's class is known by their interface, too: as who they are.
    let pretender = PodSpec::in_namespace("shop")
        .service_account("pretender")
        .label("ambit.dev/mesh", "disabled")
        .label(
            "gateway.networking.k8s.io/gateway-class-name",
            "ambit-waypoint",
        );
    let pretender = lab.node("b").pod("pretender", pretender)?;
    let mut mesh = Mesh::default()
        .control_arguments(&["--waypoint-image", "registry.example/ambit:7"])
        .in_cluster(&lab, &api)?
        .start(&lab)?;
    lab.apply("strict.yaml", STRICT)?;
    lab.apply("gateway.yaml", &gateway("w", "b", "all"))?;
    use_waypoint(&lab, "w")?;
    let kubelet = Kubelet::new(&lab, &api, "shop");
    kubelet.await_made("w")?;
    let waypoint = kubelet.start(("w", 0), "b")?;
    kubelet.await_ready(&waypoint)?;
    eventually("connections to go through it", DEADLINE, || {
        through(&mut shop)
    });

    // The first of a kind came to the agent, the next pass, and are told of by the server's end alone.
    let passed = |node: &str| lab.node(node).packets("passed_new");
    let before = [passed("a")?, passed("b")?];
    let [near, far] = shop.vips();
    for _ in 0..5 {
        let arrived = shop.friend.talk(&mut shop.far_echo, far)?;
        assert_eq!(arrived, Way::Replaced(waypoint.pod.address()));
    }
    assert!(passed("b")? >= before[1] + 5.0);
    let told = [
        "src.identity=spiffe://cluster.local/ns/shop/sa/w",
        "dst.identity=spiffe://cluster.local/ns/shop/sa/far",
    ];
    mesh.await_access("b", &[told[0], told[1], "direction=\"inbound\""])?;
    let log = mesh.agent("b").stderr();
    let is_outbound = |line: &&str| {
        told.iter().all(|part| line.contains(part)) && line.contains("direction=\"outbound\"")
    };
    assert_eq!(log.lines().find(is_outbound), None);
    // What is on the other node is reached by a tunnel, as ever.
    assert_eq!(shop.friend.call(near)?, "echoed");
    assert_eq!(passed("a")?, before[0]);

    // Both servers demand the waypoint.
    for server in [&shop.near, &shop.far] {
        assert_ne!(pretender.call(server.at(8080))?, "echoed");
    }
    mesh.await_access(
        "b",
        &[
            "connection denied",
            "src.identity=spiffe://cluster.local/ns/shop/sa/pretender",
        ],
    )?;
    // And where nobody is demanded, it is still itself.
    lab.namespace("shop").enrolled()?;
    eventually("the pretender to be admitted on its node", DEADLINE, || {
        pretender
            .call(shop.far.at(8080))
            .is_ok_and(|told| told == "echoed")
    });
    assert_ne!(pretender.call(shop.near.at(8080))?, "echoed");
    Ok(())
}
