//! Every listener under attack at once: connections that say nothing, nonsense, or too slowly, that never
//! read, and that are many.

use std::net::SocketAddr;

use lab::{Flood, Harm, Lab, Mesh, Place, Result, children, eventually, process_status};

use crate::shop::{DEADLINE, descriptors, pod, stranger};

/// Of each harm, from outside: with the others some 6,000 at once, and tens of thousands by and by.
const CONNECTIONS: u16 = 600;
const OPENS: u32 = 3000;
/// Of each harm on a node's loopback, where all have one address; there are 32 places.
const ON_LOOPBACK: u16 = 50;
/// More than control has places for.
const AT_CONTROL: u16 = 2000;
/// Times that each honest client comes.
const TIMES: usize = 2;
/// KiB by which a process may grow; an unoptimised build takes some 30 for a connection.
const GROWTH: u64 = 96 * 1024;
/// Descriptors that may be left: tunnels that are kept for a minute, 64 for each of the destinations.
const LEFT: usize = 200;

#[test]
fn attacks_on_every_listener_keep_nobody_honest_out_and_leave_nothing_behind() -> Result<()> {
    let lab = Lab::builder("attack").build()?;
    lab.namespace("shop").enrolled()?;
    lab.announce_nodes()?;
    let (friend, near) = (pod(&lab, "a", "friend")?, pod(&lab, "a", "near")?);
    let (far, behind) = (pod(&lab, "b", "far")?, pod(&lab, "b", "behind")?);
    let _served = [near.echo(80)?, far.echo(80)?, behind.echo(8080)?];
    let service = lab
        .service("shop", "behind")
        .port(80, 8080)
        .endpoint(&behind)
        .apply()?;
    lab.apply("gateway.yaml", GATEWAY)?;
    lab.namespace("shop").labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", "w"),
    ])?;
    let (attacker, mole) = (stranger(&lab, "a", "attacker")?, pod(&lab, "a", "mole")?);
    let guest = stranger(&lab, "b", "guest")?;
    let mut mesh = Mesh::default().start(&lab)?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let on = |node: &lab::Node, port| SocketAddr::new(node.address(), port);
    let waypoint = [15088, 15089, 15090].map(|port| on(b, port));
    let honest = |what: &str| -> Result<()> {
        for _ in 0..TIMES {
            for (place, url) in [
                (a as &Place, "http://127.0.0.1:15000/status".to_owned()),
                (b, format!("http://{}/metrics", on(a, 15020))),
                (b, format!("http://{}/healthz/ready", on(a, 15021))),
                (a, format!("http://{}/metrics", waypoint[1])),
                (a, format!("http://{}/healthz/ready", waypoint[2])),
            ] {
                let told = place.fetch(&url);
                assert!(told.is_ok(), "{what}: {told:?}");
            }
            for (client, server) in [
                (&friend, far.at(80)),
                (&friend, near.at(80)),
                (&friend, service.at(80)),
                (&guest, near.at(80)),
            ] {
                assert_eq!(client.call(server)?, "echoed", "{what}: {server}");
            }
        }
        Ok(())
    };
    eventually("the waypoint to be ready", DEADLINE, || {
        a.fetch(&format!("http://{}/healthz/ready", waypoint[2]))
            .is_ok()
    });
    honest("before")?;
    let agents = ["a", "b"].map(|node| mesh.agent(node).pid());
    let control = mesh.control().pid();
    let [child] = children(agents[1])?[..] else {
        panic!("not one waypoint");
    };
    let all = [agents[0], agents[1], control, child];
    let before = all.map(|pid| (descriptors(pid), anonymous(pid)));

    let from_outside = [
        on(a, 15008),
        on(a, 15020),
        on(a, 15021),
        on(b, 15008),
        on(a, 15012),
        waypoint[0],
        waypoint[1],
        waypoint[2],
        near.at(80),
    ];
    let mut floods = Vec::new();
    for harm in Harm::ALL {
        let from = [
            (&attacker as &Place, from_outside.as_slice(), CONNECTIONS),
            (a, &["127.0.0.1:15000".parse().unwrap()], ON_LOOPBACK),
            (
                &mole,
                &[far.at(80), near.at(80), service.at(80)],
                CONNECTIONS / 2,
            ),
        ];
        for (place, targets, connections) in from {
            floods.push(Flood::start(place, harm, targets, connections, OPENS)?);
        }
    }
    floods.push(Flood::start(
        &attacker,
        Harm::Silent,
        &[on(a, 15012)],
        AT_CONTROL,
        OPENS,
    )?);
    honest("under attack")?;
    // One whose certificate control has yet to make.
    let late = pod(&lab, "a", "late")?;
    eventually("a pod's first certificate", DEADLINE, || {
        late.call(far.at(80)).is_ok_and(|told| told == "echoed")
    });
    let grown = all.map(anonymous);
    drop(floods);

    for (pid, ((_, before), grown)) in all.iter().zip(before.iter().zip(grown)) {
        assert!(
            grown < before + GROWTH,
            "{pid}: {before} KiB before, {grown} under attack"
        );
    }
    for (pid, (before, _)) in all.iter().zip(before) {
        let open = || descriptors(*pid);
        eventually(
            &format!("{pid}'s {} descriptors to be {before}", open()),
            DEADLINE,
            || open() <= before + LEFT,
        );
    }
    honest("afterwards")?;
    assert!(a.metric("ambit_clients_dropped_total", &[])? > 0.0);
    for reasons in [&["source_limit"][..], &["handshake", "timeout"]] {
        let counts = reasons.iter().map(|reason| {
            let labels = [("reason", *reason)];
            a.metric("ambit_tunnels_refused_total", &labels).unwrap()
        });
        assert!(counts.sum::<f64>() > 0.0, "{reasons:?}");
    }
    Ok(())
}

/// KiB that a process allocated.
fn anonymous(pid: u32) -> u64 {
    process_status(pid, "RssAnon").unwrap()
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: w
  namespace: shop
  labels: { istio.io/waypoint-for: service }
  annotations: { ambit.dev/waypoint-node: b }
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{ name: mesh, port: 15008, protocol: HBONE }]
";
