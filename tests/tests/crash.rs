//! An agent or control that is gone: traffic waits or is reset, and is never plaintext.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::time::Duration;

use lab::{
    Capture, Child, Family, Lab, Mesh, Packet, PeerServer, Pod, PodNetwork, PodSpec, Result,
    RunningMesh, Transport, eventually,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(40);
/// In every request, whole in one segment.
const MARKER: &str = "a-marker-that-nobody-on-the-wire-may-read";
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: strict, namespace: ambit-system}\nspec: {mtls: {mode: STRICT}}\n";

/// A client that calls a server beside it and one on the other node.
struct Story {
    client: Pod,
    near: Pod,
    far: Pod,
    listening: Vec<PeerServer>,
}

impl Story {
    fn begin(lab: &Lab) -> Result<Story> {
        lab.namespace("shop").enrolled()?;
        lab.apply("strict.yaml", STRICT)?;
        let pod = || PodSpec::in_namespace("shop");
        let (client, near) = (
            lab.node("a").pod("client", pod())?,
            lab.node("a").pod("near", pod())?,
        );
        let far = lab.node("b").pod("far", pod())?;
        let echo = ["echo-server", "--dual-stack", "--listen", "[::]:8080"];
        let listening = vec![near.peer_server(echo)?, far.peer_server(echo)?];
        Ok(Story {
            client,
            near,
            far,
            listening,
        })
    }

    /// A client that sends the marker again and again, on a new connection if one breaks.
    fn persistent(&self, server: &Pod) -> Result<Child> {
        let at = server.at(8080).to_string();
        let mut child = self.client.spawn_peer([
            "persistent-client",
            "--text",
            MARKER,
            "--timeout-ms",
            "1500",
            "--connect",
            &at,
        ])?;
        child.await_json("echoing", DEADLINE)?;
        Ok(child)
    }

    fn idle(&self, server: &Pod) -> Result<Child> {
        let at = server.at(8080).to_string();
        let mut child =
            self.client
                .spawn_peer(["idle-client", "--connections", "3", "--connect", &at])?;
        child.await_json("open", DEADLINE)?;
        Ok(child)
    }

    /// One call that waits for as long as it must.
    fn patient(&self, server: &Pod) -> Result<Child> {
        let at = server.at(8080).to_string();
        self.client
            .spawn_peer(["echo-client", "--timeout-ms", "40000", "--connect", &at])
    }
}

/// Between the nodes goes nothing but tunnels and calls to the authority.
fn assert_no_plaintext(packets: &[Packet]) {
    assert!(packets.iter().any(Packet::is_tcp));
    for packet in packets {
        let ours = packet.has_port(15008) || packet.has_port(15012);
        assert!(ours || !packet.is_tcp(), "{packet}");
        assert!(!packet.contains(MARKER), "{packet}");
    }
}

/// Waits until the client has asked for connections, some of them again, without an answer.
fn await_attempts(capture: &mut Capture) {
    eventually("attempts to connect", DEADLINE, || {
        capture
            .packets()
            .unwrap()
            .iter()
            .filter(|packet| packet.is_syn())
            .count()
            >= 4
    });
}

fn await_echo_on_another(child: &mut Child) -> Result<()> {
    let echoing = |line: &str| line.starts_with("{\"echoing\"") && !line.contains(":1}");
    child.await_stdout(DEADLINE, echoing).map(drop)
}

/// Takes the agent of `node` away by `stop`, and brings it back.
fn outage(
    lab: &Lab,
    agent: &str,
    stop: impl FnOnce(&mut RunningMesh<'_>) -> Result<()>,
    arguments: &[&str],
) -> Result<()> {
    let story = Story::begin(lab)?;
    let mut mesh = Mesh::default()
        .carrying_all()
        .agent_arguments(arguments)
        .start(lab)?;
    let mut wire = lab.wire_capture()?;
    // What the outage reaches: all of the client's node, or just what goes to the other one.
    let servers = match agent {
        "a" => vec![&story.near, &story.far],
        _ => vec![&story.far],
    };
    let mut persistent = Vec::new();
    let mut idle = Vec::new();
    for server in &servers {
        persistent.push(story.persistent(server)?);
        idle.push(story.idle(server)?);
    }

    stop(&mut mesh)?;
    // What is open is cut off, and seen to be cut off: not an end that could be taken for the
    // server's, and not silence.
    for child in persistent.iter_mut().chain(&mut idle) {
        let cut = |line: &str| line.contains("\"broken\":1") || line.contains("\"ends\"");
        let line = child.await_stdout(DEADLINE, cut)?;
        assert!(
            line.contains("\"reset\"") || line.contains("broken pipe"),
            "{line}"
        );
    }
    if agent == "a" {
        let mut leaving = story.client.capture("eth0", "tcp")?;
        let arriving = story.near.capture("eth0", "tcp")?;
        let patient = servers
            .iter()
            .map(|server| story.patient(server))
            .collect::<Result<Vec<_>>>()?;
        await_attempts(&mut leaving);
        // A pod of the same node hears nothing of it.
        for packet in arriving.stop()? {
            assert!(!packet.is_syn() && !packet.contains(MARKER), "{packet}");
        }
        assert_no_plaintext(&wire.packets()?);
        mesh.start_agent(lab.node(agent))?;
        for child in patient {
            assert_eq!(child.wait(DEADLINE)?.json()?["succeeded"], 1);
        }
    } else {
        let before = wire.packets()?.len();
        // The client's agent tries, and finds nobody at the other node's tunnel port.
        assert_ne!(story.client.call(story.far.at(8080))?, "echoed");
        eventually("attempts between agents", DEADLINE, || {
            wire.packets().unwrap().len() > before
        });
        assert_no_plaintext(&wire.packets()?);
        mesh.start_agent(lab.node(agent))?;
    }
    for child in &mut persistent {
        await_echo_on_another(child)?;
    }
    assert_no_plaintext(&wire.stop()?);
    Ok(())
}

#[test]
fn an_agent_killed_cuts_off_what_is_open_and_lets_nothing_by() -> Result<()> {
    for (network, family) in [
        (PodNetwork::Routed, Family::V4),
        (PodNetwork::Bridged, Family::V6),
    ] {
        for agent in ["a", "b"] {
            eprintln!("{network:?} {agent}");
            let lab = Lab::builder("killed")
                .pods(network)
                .family(family)
                .build()?;
            outage(
                &lab,
                agent,
                |mesh| {
                    mesh.kill_agent(agent);
                    Ok(())
                },
                &[],
            )?;
        }
    }
    Ok(())
}

#[test]
fn an_agent_told_to_end_drains_and_lets_nothing_by() -> Result<()> {
    for (network, family) in [
        (PodNetwork::Bridged, Family::V4),
        (PodNetwork::Routed, Family::V6),
    ] {
        for agent in ["a", "b"] {
            eprintln!("{network:?} {agent}");
            let lab = Lab::builder("ended").pods(network).family(family).build()?;
            outage(&lab, agent, |mesh| mesh.stop_agent(agent), &[])?;
        }
    }
    Ok(())
}

#[test]
fn filters_outlive_a_killed_agent_as_links_do() -> Result<()> {
    let lab = Lab::builder("filters").build()?;
    outage(
        &lab,
        "a",
        |mesh| {
            mesh.kill_agent("a");
            Ok(())
        },
        &["--attach", "clsact"],
    )
}

#[test]
fn connections_that_wait_in_silence_are_reset_when_the_agent_is_back() -> Result<()> {
    // Resets that the kernel sends for a dead agent can be lost: without them the client still
    // thinks that its connection is open.
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        let lab = Lab::builder("silence").pods(network).build()?;
        let story = Story::begin(&lab)?;
        let mut mesh = Mesh::default().carrying_all().start(&lab)?;
        let mut clients = vec![
            story.persistent(&story.near)?,
            story.persistent(&story.far)?,
        ];
        let lose = "add table inet lose; add chain inet lose in { type filter hook input priority -400; }; \
                    add rule inet lose in tcp sport 8080 drop";
        story.client.run("nft", [lose])?.success()?;
        mesh.kill_agent("a");
        story
            .client
            .run("nft", ["delete table inet lose"])?
            .success()?;
        mesh.start_agent(lab.node("a"))?;
        for child in &mut clients {
            let broken = child.await_json("broken", DEADLINE)?;
            assert!(
                ["reset", "broken pipe"].contains(&broken["end"].as_str().unwrap()),
                "{broken}"
            );
            await_echo_on_another(child)?;
        }
        assert!(lab.node("a").packets("captured_orphan")? >= 1.0);
    }
    Ok(())
}

#[test]
fn without_agent_allow_lets_new_connections_by() -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        let lab = Lab::builder("allow").pods(network).build()?;
        let mut story = Story::begin(&lab)?;
        let mut mesh = Mesh::default()
            .carrying_all()
            .agent_arguments(&["--without-agent", "allow"])
            .start(&lab)?;
        let mut idle = story.idle(&story.near)?;
        mesh.kill_agent("a");
        mesh.kill_agent("b");
        assert_eq!(
            idle.await_json("ends", DEADLINE)?["ends"],
            json!(["reset", "reset", "reset"])
        );
        let wire = lab.wire_capture()?;
        for server in [&story.near, &story.far] {
            assert_eq!(story.client.call(server.at(8080))?, "echoed");
        }
        let plain = |packet: &Packet| {
            matches!(
                packet.transport,
                Transport::Tcp {
                    destination: 8080,
                    ..
                }
            )
        };
        assert!(wire.stop()?.iter().any(plain));
        assert_eq!(
            story.listening[1].await_reports(1, DEADLINE)?[0]["end"],
            "eof"
        );
        // An agent that is back takes new ones again.
        mesh.start_agent(lab.node("a"))?;
        mesh.start_agent(lab.node("b"))?;
        let wire = lab.wire_capture()?;
        assert_eq!(story.client.call(story.far.at(8080))?, "echoed");
        assert_no_plaintext(&wire.stop()?);
    }
    Ok(())
}

#[test]
fn without_control_traffic_goes_on_and_new_identities_wait_for_it() -> Result<()> {
    let lab = Lab::builder("control").build()?;
    let story = Story::begin(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    assert_eq!(story.client.call(story.far.at(8080))?, "echoed");
    mesh.kill_control();
    for server in [&story.near, &story.far] {
        assert_eq!(story.client.call(server.at(8080))?, "echoed");
    }
    // Keys are never written down, so an agent that starts now has no certificate.
    mesh.kill_agent("b");
    mesh.start_agent(lab.node("b"))?;
    let wire = lab.wire_capture()?;
    let mut waiting = story.client.spawn_peer([
        "persistent-client",
        "--text",
        MARKER,
        "--connect",
        &story.far.at(8080).to_string(),
    ])?;
    let certificates = || lab.node("b").admin("/certificates").unwrap();
    eventually("a failed request", DEADLINE, || {
        certificates()[0]["error"].is_string()
    });
    assert_eq!(story.client.call(story.near.at(8080))?, "echoed");
    assert_eq!(waiting.stdout(), "");
    mesh.start_control()?;
    waiting.await_json("echoing", DEADLINE)?;
    assert_no_plaintext(&wire.stop()?);
    Ok(())
}
