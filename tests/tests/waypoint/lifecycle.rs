//! Waypoints that come, go, and fail.

use lab::{Lab, Mesh, Result, RunningMesh, Way, eventually};

use crate::shop::{DEADLINE, Shop, await_ready, gateway, mesh_with_waypoint, opened};

/// The process id of the waypoint that the agent of a node has started last.
pub(crate) fn started(mesh: &mut RunningMesh<'_>, node: &str) -> String {
    let log = mesh.agent(node).stderr();
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.contains("started a waypoint"));
    let rest = line.and_then(|line| line.split("pid=").nth(1)).unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

fn is_alive(pid: &str) -> bool {
    // A zombie has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_waypoint_that_is_killed_is_started_again_and_goes_with_its_gateway() -> Result<()> {
    let lab = Lab::builder("killed").build()?;
    let mut shop = Shop::open(&lab)?;
    // Named by the objects themselves, so that no label makes another.
    lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
    lab.namespace("shop").labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("istio.io/use-waypoint", "w"),
    ])?;
    let mut mesh = Mesh::default().start(&lab)?;
    await_ready(&lab, "b");
    assert!(matches!(shop.ways()?[0], Way::Replaced(_)));
    let first = started(&mut mesh, "b");
    lab.node("b").run("kill", ["-KILL", &first])?.success()?;
    eventually("connections to work again", DEADLINE, || {
        matches!(shop.ways(), Ok([Way::Replaced(_), Way::Replaced(_)]))
    });
    let second = started(&mut mesh, "b");
    assert_ne!(first, second);
    let denied = [("decision", "deny")];
    assert!(
        lab.node("a")
            .metric("ambit_waypoint_missing_total", &denied)?
            <= 60.0
    );

    lab.remove("gateway.yaml")?;
    eventually("connections to go directly", DEADLINE, || {
        matches!(shop.ways(), Ok([Way::Carried | Way::Direct, Way::Carried]))
    });
    eventually("the waypoint to end", DEADLINE, || !is_alive(&second));
    let problems = lab.node("a").admin("/problems")?.to_string();
    assert!(
        problems.contains("there is no Gateway shop/w"),
        "{problems}"
    );
    Ok(())
}

#[test]
fn a_waypoint_ends_with_the_agent_that_was_killed() -> Result<()> {
    let lab = Lab::builder("orphaned").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = mesh_with_waypoint(&lab, "service")?;
    let child = started(&mut mesh, "b");
    // The agent alone, not its group.
    mesh.agent("b").signal(9)?;
    eventually("the waypoint to end", DEADLINE, || !is_alive(&child));
    mesh.kill_agent("b");
    mesh.start_agent(lab.node("b"))?;
    await_ready(&lab, "b");
    eventually("connections to work again", DEADLINE, || {
        matches!(shop.ways(), Ok([Way::Replaced(_), Way::Replaced(_)]))
    });
    let child = started(&mut mesh, "b");
    mesh.stop_agent("b")?;
    assert!(!is_alive(&child), "it is stopped with its agent");
    Ok(())
}

#[test]
fn without_a_waypoint_connections_are_refused_or_go_without_it_as_was_asked_for() -> Result<()> {
    for (decision, arrives) in [("deny", false), ("allow", true)] {
        let lab = Lab::builder("missing").build()?;
        let mut shop = Shop::open(&lab)?;
        let mut mesh = Mesh::default()
            .agent_arguments(&["--waypoint-missing", decision])
            .start(&lab)?;
        assert_eq!(shop.ways()?, [Way::Carried, Way::Carried]);
        // No such node: it has no endpoints. Then one that nobody runs: its endpoint is out of reach.
        lab.apply("gateway.yaml", &gateway("w", "nowhere", "service"))?;
        crate::shop::use_waypoint(&lab, "w")?;
        let counted = |least: f64| {
            let labels = [("waypoint", "shop/w"), ("decision", decision)];
            lab.node("a")
                .metric("ambit_waypoint_missing_total", &labels)
                .unwrap()
                >= least
        };
        eventually("the waypoint to be missed", DEADLINE, || {
            let _ = shop.ways().unwrap();
            counted(1.0)
        });
        let expected = if arrives { "echoed" } else { "reset" };
        for vip in shop.vips() {
            assert_eq!(shop.friend.call(vip)?, expected);
        }
        let told = match arrives {
            true => "the waypoint isn't ready: went without it",
            false => "no endpoint of waypoint shop/w is ready",
        };
        mesh.await_access("a", &[told])?;
        let problems = lab.node("a").admin("/problems")?.to_string();
        assert!(problems.contains("there is no Node nowhere"), "{problems}");
    }
    Ok(())
}

#[test]
fn what_passes_from_pod_to_pod_ends_when_a_waypoint_comes_into_force() -> Result<()> {
    let lab = Lab::builder("passes").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let [near, _] = shop.vips();
    assert_eq!(shop.friend.talk(&mut shop.near_echo, near)?, Way::Carried);
    assert_eq!(shop.friend.talk(&mut shop.near_echo, near)?, Way::Direct);
    let mut held = shop.friend.hold(near)?;
    held.echo().unwrap();
    lab.apply("gateway.yaml", &gateway("w", "b", "all"))?;
    crate::shop::use_waypoint(&lab, "w")?;
    let end = held.await_end().unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    await_ready(&lab, "b");
    for _ in 0..3 {
        let way = shop.friend.talk(&mut shop.near_echo, near)?;
        assert!(matches!(way, Way::Replaced(_)), "{way:?}");
        let way = shop.friend.talk(&mut shop.near_echo, shop.near.at(8080))?;
        assert!(matches!(way, Way::Replaced(_)), "{way:?}");
    }
    assert!((opened(&lab, "b") - 6.0).abs() < 0.1);
    Ok(())
}
