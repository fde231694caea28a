//! Which way bytes take.

use lab::{Lab, Mesh, PodSpec, Result, Way};

use crate::shop::{PORT, Shop, await_ready, mesh_with_waypoint, opened, use_waypoint};

/// How each request of the lab's echo client begins: as good a marker as any.
const MARKER: &str = "0/0 0/0 0/0 0/0 ";

#[test]
fn services_of_either_node_are_reached_through_the_waypoint_and_the_wire_shows_only_tls()
-> Result<()> {
    let lab = Lab::builder("through").build()?;
    let mut shop = Shop::open(&lab)?;
    let wire = lab.wire_capture()?;
    let mut mesh = mesh_with_waypoint(&lab, "service")?;
    let node_b = lab.node("b").address();
    for round in 1..=3 {
        // The agent of the server's node has them of the waypoint.
        for way in shop.ways()? {
            assert!(matches!(way, Way::Replaced(_)), "round {round}: {way:?}");
        }
        assert!((opened(&lab, "b") - f64::from(2 * round)).abs() < 0.1);
    }
    for vip in shop.vips() {
        let at = vip.to_string();
        let many = [
            "echo-client",
            "--connect",
            &at,
            "--connections",
            "20",
            "--requests",
            "5",
        ];
        assert_eq!(shop.friend.peer(many)?["succeeded"], 20);
    }
    assert!((opened(&lab, "b") - 46.0).abs() < 0.1);

    for service in ["near", "far"] {
        let host = format!("dst.service=\"{service}.shop.svc.cluster.local\"");
        let client = "src.identity=spiffe://cluster.local/ns/shop/sa/friend";
        let through = [
            "direction=\"through\"",
            "dst.waypoint=\"shop/w\"",
            client,
            &host,
        ];
        mesh.await_access("b", &through)?;
        mesh.await_access(
            "a",
            &["direction=\"outbound\"", "dst.waypoint=\"shop/w\"", &host],
        )?;
    }
    // What is addressed to a pod isn't the business of a waypoint for services.
    let before = opened(&lab, "b");
    let at = shop.far.at(8080);
    assert_eq!(shop.friend.talk(&mut shop.far_echo, at)?, Way::Carried);
    assert!((opened(&lab, "b") - before).abs() < 0.1);

    let packets = wire.stop()?;
    assert!(packets.iter().any(|it| it.has_port(PORT)), "to {node_b}");
    for packet in &packets {
        assert!(!packet.contains(MARKER), "in clear on the wire: {packet:?}");
        let of_mesh = [15008, 15012, PORT]
            .iter()
            .any(|port| packet.has_port(*port));
        assert!(
            !packet.is_tcp() || of_mesh,
            "not the mesh's own: {packet:?}"
        );
    }
    Ok(())
}

#[test]
fn the_label_of_a_namespace_alone_makes_a_waypoint_on_the_first_node() -> Result<()> {
    let lab = Lab::builder("label").build()?;
    let mut shop = Shop::open(&lab)?;
    use_waypoint(&lab, "w")?;
    let _mesh = Mesh::default().start(&lab)?;
    await_ready(&lab, "a");
    assert!(
        shop.ways()?
            .iter()
            .all(|way| matches!(way, Way::Replaced(_)))
    );
    assert!((opened(&lab, "a") - 2.0).abs() < 0.1);
    Ok(())
}

#[test]
fn streams_end_as_they_would_without_a_waypoint() -> Result<()> {
    let lab = Lab::builder("ends").build()?;
    let shop = Shop::open(&lab)?;
    let outside = lab
        .node("a")
        .pod("outside", PodSpec::in_namespace("street"))?;
    lab.namespace("street").not_enrolled()?;
    let _mesh = mesh_with_waypoint(&lab, "service")?;
    for (server, name, port) in [
        (&shop.near, "n", 1),
        (&shop.far, "f", 2),
        (&outside, "o", 3),
    ] {
        let port = 9000 + port;
        let listen = format!("0.0.0.0:{port}");
        let mut serve = server.peer_server([
            "half-close-server",
            "--listen",
            &listen,
            "--bytes",
            "1000000",
            "--first",
            "client",
        ])?;
        let service = lab.service("shop", name).port(80, port).endpoint(server);
        let at = service.apply()?.at(80).to_string();
        lab::eventually("the service to be known", crate::shop::DEADLINE, || {
            lab.node("b")
                .admin("/services")
                .unwrap()
                .to_string()
                .contains(&format!("shop/{name}\""))
        });
        let told = shop.friend.peer([
            "half-close-client",
            "--connect",
            &at,
            "--bytes",
            "1000000",
            "--first",
            "client",
        ])?;
        assert_eq!(told["received_bytes"], 1_000_000, "{name}: {told}");
        assert_eq!(told["end"], "eof", "{name}: {told}");
        serve.await_reports(1, crate::shop::DEADLINE)?;
    }
    Ok(())
}

#[test]
fn workloads_are_reached_through_a_waypoint_that_is_for_them() -> Result<()> {
    let lab = Lab::builder("workload").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = mesh_with_waypoint(&lab, "workload")?;
    for (pod, echo) in [
        (&shop.near, &mut shop.near_echo),
        (&shop.far, &mut shop.far_echo),
    ] {
        let way = shop.friend.talk(echo, pod.at(8080))?;
        assert!(matches!(way, Way::Replaced(_)), "{}: {way:?}", pod.name());
    }
    assert!((opened(&lab, "b") - 2.0).abs() < 0.1);
    // A pod demands it, whatever name it is called by.
    assert!(
        shop.ways()?
            .iter()
            .all(|way| matches!(way, Way::Replaced(_)))
    );
    assert!((opened(&lab, "b") - 4.0).abs() < 0.1);
    Ok(())
}
