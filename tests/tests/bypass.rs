//! What might get past the hooks: packets that don't look like what they are.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lab::{Capture, Family, Lab, Mesh, Place, Pod, PodNetwork, PodSpec, Result, Way, eventually};

const DEADLINE: Duration = Duration::from_secs(20);
const COUNT: u32 = 3;
/// The ports that forged SYNs come from, and no other packet: without a mesh, and with one.
const BEFORE: u16 = 4443;
const DURING: u16 = 4444;

/// A frame that is switched without netfilter keeps the socket of the pod that sent it.
#[test]
fn a_pod_isnt_taken_for_the_node_whether_or_not_the_bridge_calls_iptables() -> Result<()> {
    for (family, calls_iptables) in [
        (Family::V4, "0"),
        (Family::V4, "1"),
        (Family::V6, "0"),
        (Family::V6, "1"),
    ] {
        let case = format!("{family:?}, bridge-nf-call-* = {calls_iptables}");
        let lab = Lab::builder("bridge-nf")
            .pods(PodNetwork::Bridged)
            .family(family)
            .build()?;
        let node = lab.node("a");
        for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            node.sysctl(&format!("bridge/{setting}"), calls_iptables)?;
        }
        lab.namespace("vault").enrolled()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        lab.namespace("vault").strict()?;
        let strict = node.pod("strict", PodSpec::in_namespace("vault"))?;
        let open = node.pod("open", PodSpec::in_namespace("shop"))?;
        let stranger = node.pod("stranger", PodSpec::in_namespace("street"))?;
        let (mut to_strict, mut to_open) = (strict.echo(8080)?, open.echo(8080)?);
        let _mesh = Mesh::default().start(&lab)?;

        let way = stranger.talk(&mut to_strict, strict.at(8080))?;
        assert_eq!(way, Way::reset(), "{case}: to the STRICT pod");
        let (way, diverted) =
            node.counting("diverted", || stranger.talk(&mut to_open, open.at(8080)))?;
        assert_eq!(way, Way::Carried, "{case}: to the PERMISSIVE pod");
        assert!(diverted >= 1.0, "{case}: diverted moved by {diverted}");
        let (way, own) = node.counting("node_process", || {
            node.talk(&mut to_strict, strict.at(8080))
        })?;
        assert_eq!(way, Way::Direct, "{case}: from the node itself");
        assert!(own >= 1.0, "{case}: node_process moved by {own}");
    }
    Ok(())
}

/// Two VLAN tags hide a packet from whoever looks behind none or one. The kernel takes both off if
/// they are of VLAN 0.
#[test]
fn a_syn_behind_two_vlan_tags_never_arrives() -> Result<()> {
    for (network, family) in [
        (PodNetwork::Bridged, Family::V4),
        (PodNetwork::Bridged, Family::V6),
        (PodNetwork::Routed, Family::V4),
        (PodNetwork::Routed, Family::V6),
    ] {
        let lab = Lab::builder("tags").pods(network).family(family).build()?;
        let server = vault(&lab)?;
        let stranger = lab
            .node("a")
            .pod("stranger", PodSpec::in_namespace("street"))?;
        let member = lab.node("a").pod("member", PodSpec::in_namespace("shop"))?;
        let _echo = server.echo(8080)?;
        let mut cases = Vec::new();
        for forger in [&stranger, &member] {
            let next_hop = match network {
                PodNetwork::Bridged => hardware_address(&server, "eth0")?,
                PodNetwork::Routed => hardware_address(lab.node("a"), forger.host_interface())?,
            };
            let own = hardware_address(forger, "eth0")?;
            let link = ["--link-source", &own, "--link-destination", &next_hop].map(String::from);
            for tag in [
                &["--vlan-tags", "2"][..],
                &["--vlan-tags", "2", "--service-tag"],
            ] {
                let tag = tag.iter().map(ToString::to_string);
                cases.push((forger, link.iter().cloned().chain(tag).collect()));
            }
        }
        check_forged(&lab, &server, "dropped_malformed", &cases)?;
    }
    Ok(())
}

/// In a fragment the header behind the fragment header need not be TCP's: that may come later.
#[test]
fn a_fragmented_syn_behind_another_header_never_arrives() -> Result<()> {
    let lab = Lab::builder("fragments").family(Family::V6).build()?;
    let server = vault(&lab)?;
    let _echo = server.echo(8080)?;
    let mut forgers = Vec::new();
    for node in lab.nodes() {
        forgers.push(node.pod("stranger", PodSpec::in_namespace("street"))?);
        forgers.push(node.pod("member", PodSpec::in_namespace("shop"))?);
    }
    let dress = || vec!["--fragment-behind".into(), "destination-options".into()];
    let cases: Vec<_> = forgers.iter().map(|forger| (forger, dress())).collect();
    check_forged(&lab, &server, "dropped_fragment", &cases)
}

/// The node learns a route and an address of its own from a pod's advertisement, and an interface
/// with these looks like the node's uplink.
#[test]
fn a_pod_that_calls_itself_a_router_stays_captured() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::builder("router").family(family).build()?;
        let node = lab.node("a");
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let passer = node.pod("passer", PodSpec::in_namespace("street"))?;
        let client = node.pod("client", PodSpec::in_namespace("shop"))?;
        // On another node, so that only the client's own interface can capture it on this one.
        let server = lab.node("b").pod("server", PodSpec::in_namespace("shop"))?;
        let mut echo = server.echo(8080)?;
        for pod in [&passer, &client] {
            let veth = pod.host_interface();
            node.sysctl(&format!("ipv6/conf/{veth}/accept_ra"), "2")?;
        }
        // The node believes what a pod advertises: this one isn't in the mesh.
        passer.peer(["advertise-router"])?;
        let learnt = || {
            let dev = passer.host_interface();
            let shown = node.run("ip", ["-6", "route", "show", "proto", "ra", "dev", dev]);
            shown.is_ok_and(|shown| shown.succeeded() && !shown.stdout.is_empty())
        };
        eventually("the node learning a route from a pod", DEADLINE, learnt);

        let mut mesh = Mesh::default().start(&lab)?;
        client.peer(["advertise-router"])?;
        // A pod that is captured came after that, so the agent has looked at interfaces again.
        let late = node.pod("late", PodSpec::in_namespace("shop"))?;
        let way = late.talk(&mut echo, server.at(8080))?;
        assert_eq!(way, Way::Carried, "{family:?}: a later pod");
        for agent in ["the agent it met", "an agent that starts later"] {
            if agent == "an agent that starts later" {
                mesh.stop_agent("a")?;
                mesh.start_agent(node)?;
            }
            let (way, captured) =
                node.counting("captured_new", || client.talk(&mut echo, server.at(8080)))?;
            assert_eq!(way, Way::Carried, "{family:?}: {agent}");
            assert!(
                captured >= 1.0,
                "{family:?}: {agent} captured_new moved by {captured}"
            );
            let before = node.packets("dropped_forged_source")?;
            forge(&client, late.address(), DURING, &server, &[])?;
            eventually("the pod's forged packets dropped", DEADLINE, || {
                let now = node.packets("dropped_forged_source");
                now.is_ok_and(|now| now - before >= f64::from(COUNT))
            });
        }
    }
    Ok(())
}

/// A STRICT pod on node a, and namespaces for pods in the mesh and outside.
fn vault(lab: &Lab) -> Result<Pod> {
    lab.namespace("vault").enrolled()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    lab.namespace("vault").strict()?;
    lab.node("a").pod("server", PodSpec::in_namespace("vault"))
}

/// Makes sure that SYNs, each dressed up in a way, reach a server without a mesh, and that with a
/// mesh they are dropped for a reason and don't.
fn check_forged(
    lab: &Lab,
    server: &Pod,
    reason: &str,
    cases: &[(&Pod, Vec<String>)],
) -> Result<()> {
    let mut capture = server.capture("eth0", "")?;
    for (forger, dress) in cases {
        forge(forger, forger.address(), BEFORE, server, dress)?;
        let what = format!(
            "an answer to {} {dress:?} without a mesh",
            forger.namespace()
        );
        eventually(&what, DEADLINE, || {
            is_answered(&mut capture, forger, BEFORE)
        });
        capture = server.capture("eth0", "")?;
    }
    let _mesh = Mesh::default().start(lab)?;
    let dropped = || -> Result<f64> {
        let counts = lab.nodes().iter().map(|node| node.packets(reason));
        counts.sum()
    };
    for (forger, dress) in cases {
        let who = format!("{} {dress:?}", forger.namespace());
        let before = dropped()?;
        forge(forger, forger.address(), DURING, server, dress)?;
        let mut answered = false;
        eventually(
            &format!("{who} dropped ({reason}) or answered"),
            DEADLINE,
            || {
                answered = is_answered(&mut capture, forger, DURING);
                answered || dropped().is_ok_and(|now| now - before >= f64::from(COUNT))
            },
        );
        assert!(!answered, "the server answers {who}");
    }
    let seen = capture.stop()?;
    let forged = seen.iter().find(|packet| packet.has_port(DURING));
    assert_eq!(forged, None, "arrived or was answered");
    Ok(())
}

/// Sends SYNs to a server's port 8080 from any address and port.
fn forge(forger: &Pod, address: IpAddr, port: u16, server: &Pod, dress: &[String]) -> Result<()> {
    let source = SocketAddr::new(address, port).to_string();
    let (destination, count) = (server.at(8080).to_string(), COUNT.to_string());
    let plain = [
        "forge-syn",
        "--source",
        &source,
        "--destination",
        &destination,
        "--count",
        &count,
    ];
    let dress = dress.iter().map(String::as_str);
    forger.peer(plain.into_iter().chain(dress)).map(drop)
}

/// Whether a server has sent anything to a port of the forger: a SYN-ACK, of all it could send.
fn is_answered(capture: &mut Capture, forger: &Pod, port: u16) -> bool {
    capture.packets().is_ok_and(|packets| {
        let mut answers = packets
            .iter()
            .filter(|packet| packet.destination == forger.address());
        answers.any(|packet| packet.has_port(port) && !packet.is_reset())
    })
}

fn hardware_address(place: &Place, interface: &str) -> Result<String> {
    let shown = place
        .run("ip", ["-j", "link", "show", "dev", interface])?
        .json()?;
    Ok(shown[0]["address"].as_str().unwrap_or_default().into())
}
