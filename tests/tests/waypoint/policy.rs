//! Who may connect, and who decides.

use lab::{Lab, Mesh, Result, Way};

use crate::shop::{
    DEADLINE, PORT, Shop, await_ready, gateway, mesh_with_waypoint, opened, use_waypoint,
};

/// Only the stranger is refused, by both servers.
pub(super) const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: deny, namespace: shop}\n\
     spec:\n  action: DENY\n  \
     rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/stranger]}}]}]\n";

/// Only the friend is admitted, by both servers.
pub(super) const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: allow, namespace: shop}\n\
     spec:\n  \
     rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/friend]}}]}]\n";

#[test]
fn the_waypoint_decides_by_the_identity_of_the_client() -> Result<()> {
    for policy in [DENY, ALLOW] {
        let lab = Lab::builder("decides").build()?;
        let shop = Shop::open(&lab)?;
        let mut mesh = mesh_with_waypoint(&lab, "service")?;
        let vips = shop.vips().map(|vip| vip.to_string());
        let mut idle = Vec::new();
        for client in [&shop.friend, &shop.stranger] {
            for vip in &vips {
                let arguments = ["idle-client", "--connections", "2", "--connect", vip];
                let mut child = client.spawn_peer(arguments)?;
                child.await_json("open", DEADLINE)?;
                idle.push(child);
            }
        }
        mesh.apply("policies.yaml", policy)?;
        // What is open ends, if the policy forbids it.
        for child in &mut idle[2..] {
            let ends = child.await_json("ends", DEADLINE)?;
            assert_eq!(ends["ends"], serde_json::json!(["reset", "reset"]));
        }
        assert!(idle[0].is_running() && idle[1].is_running());
        for vip in shop.vips() {
            assert_eq!(shop.friend.call(vip)?, "echoed");
            assert_ne!(shop.stranger.call(vip)?, "echoed");
        }
        let stranger = "src.identity=spiffe://cluster.local/ns/shop/sa/stranger";
        mesh.await_access(
            "b",
            &["connection denied", "direction=\"through\"", stranger],
        )?;
    }
    Ok(())
}

#[test]
fn a_workload_that_demands_its_waypoint_takes_nothing_past_it() -> Result<()> {
    let lab = Lab::builder("demand").build()?;
    let mut shop = Shop::open(&lab)?;
    // The agent of node b knows of the waypoint, that of node a learns of it no more.
    let mut mesh = Mesh::default().start(&lab)?;
    assert_eq!(shop.ways()?[1], Way::Carried);
    let agent = mesh.agent("a").pid();
    let signal = |name: &str| lab.node("a").run("kill", [name, &agent.to_string()]);
    let at = shop.far.at(8080).to_string();
    let mut held = {
        let arguments = ["idle-client", "--connections", "1", "--connect", &at];
        let mut child = shop.friend.spawn_peer(arguments)?;
        child.await_json("open", DEADLINE)?;
        child
    };
    signal("-STOP")?.success()?;
    lab.apply("gateway.yaml", &gateway("w", "b", "workload"))?;
    use_waypoint(&lab, "w")?;
    await_ready(&lab, "b");
    // What was open past it has ended, as its agent could tell only now.
    let access = mesh.agent("b").await_stderr(DEADLINE, |line| {
        line.contains("demands that connections come through its waypoint shop/w")
    })?;
    assert!(
        access.contains("friend") || access.contains("closing"),
        "{access}"
    );
    signal("-CONT")?.success()?;
    let ends = held.await_json("ends", DEADLINE)?;
    assert_eq!(ends["ends"], serde_json::json!(["reset"]));
    lab::eventually("node a to know of it", DEADLINE, || {
        let way = shop.friend.talk(&mut shop.far_echo, shop.far.at(8080));
        matches!(way, Ok(Way::Replaced(_)))
    });
    assert!(opened(&lab, "b") >= 1.0);
    Ok(())
}

#[test]
fn of_two_waypoints_of_one_port_the_later_by_name_is_told_of_and_nothing_goes_past_it() -> Result<()>
{
    let lab = Lab::builder("clash").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = mesh_with_waypoint(&lab, "service")?;
    assert!(matches!(shop.ways()?[1], Way::Replaced(_)));
    lab.remove("gateway.yaml")?;
    lab.apply("gateway.yaml", &gateway("other", "b", "service"))?;
    lab.namespace("shop").labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("istio.io/use-waypoint", "w"),
    ])?;
    await_ready(&lab, "b");
    lab.apply(
        "gateway-w.yaml",
        &gateway("w", "b", "service").replace(
            "ambit.dev/waypoint-node: b",
            &format!("ambit.dev/waypoint-node: b, ambit.dev/waypoint-port: \"{PORT}\""),
        ),
    )?;
    let problem = |text: &str| {
        let shown = lab.node("a").admin("/problems").unwrap().to_string();
        shown.contains(text)
    };
    // Two of one port: the later has no place, and nothing goes past it.
    lab::eventually("the clash to be told", DEADLINE, || {
        problem("is that of waypoint") || problem("waypoint shop/other has one of them")
    });
    lab::eventually("connections to be refused", DEADLINE, || {
        shop.friend.call(shop.vips()[1]).unwrap() == "reset"
    });
    mesh.await_access("a", &["no endpoint of waypoint shop/w is ready"])?;
    Ok(())
}
