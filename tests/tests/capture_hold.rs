//! A pod that isn't known yet speaks to nobody, and nobody to it, in plaintext.

use std::time::Duration;

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result, Way, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than any test: what is held is held until the announcement.
const FOREVER: [&str; 2] = ["--hold", "10m"];

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

#[test]
fn a_pods_first_connection_waits_for_its_announcement_and_is_carried_then() -> Result<()> {
    on_each_network("hold", |lab| {
        lab.namespace("shop").enrolled()?;
        let server = lab.node("b").pod("server", shop())?;
        let mut echo = server.echo(8080)?;
        let _mesh = Mesh::default().agent_arguments(&FOREVER).start(lab)?;

        let wire = lab.wire_capture()?;
        let node = lab.node("a");
        let early = node.schedule("early", shop())?.start()?;
        let talk = early.begin_talk(&echo, server.at(8080))?;
        eventually("a SYN is held", DEADLINE, || {
            node.packets("dropped_held").is_ok_and(|held| held >= 1.0)
        });
        assert_eq!(echo.clients()?, [], "nobody got through");

        early.announce()?;
        assert_eq!(talk.end(&mut echo)?, Way::Carried);
        // By that very SYN: nobody waited for the client to send another.
        assert!(node.packets("held_sent_on")? >= 1.0);
        for packet in wire.stop()? {
            assert!(
                !packet.is_tcp() || !packet.has_address(early.address()),
                "in clear on the wire: {packet:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn connections_to_a_pod_wait_for_its_announcement_too() -> Result<()> {
    on_each_network("held", |lab| {
        lab.namespace("shop").enrolled()?;
        let near = lab.node("a").pod("near", shop())?;
        let far = lab.node("b").pod("far", shop())?;
        let _mesh = Mesh::default().agent_arguments(&FOREVER).start(lab)?;

        let node = lab.node("a");
        let early = node.schedule("early", shop())?.start()?;
        // Each client has a server of its own, so that their reports aren't mixed up.
        let servers = [(&near, early.echo(8080)?), (&far, early.echo(8081)?)];
        let held = || node.packets("dropped_held");
        let mut talks = Vec::new();
        for (client, echo) in servers {
            let before = held()?;
            let talk = client.begin_talk(&echo, early.at(echo.address().port()))?;
            talks.push((talk, echo));
            eventually("a SYN is held", DEADLINE, || {
                held().is_ok_and(|held| held > before)
            });
        }
        for (_, echo) in &talks {
            assert_eq!(echo.clients()?, [], "nobody got through");
        }

        early.announce()?;
        for (talk, mut echo) in talks {
            assert_eq!(talk.end(&mut echo)?, Way::Carried);
        }
        Ok(())
    })
}

/// A pod that nobody announces, after the hold.
fn after_the_hold(network: PodNetwork, family: Family, policy: &str, counter: &str) -> Result<()> {
    let lab = Lab::builder("unknown")
        .pods(network)
        .family(family)
        .build()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    let server = lab
        .node("b")
        .pod("server", PodSpec::in_namespace("street"))?;
    let mut echo = server.echo(8080)?;
    let node = lab.node("a");
    let arguments = ["--hold", "1s", "--unknown-pods", policy];
    let _mesh = Mesh::default().agent_arguments(&arguments).start(&lab)?;

    let stray = node
        .schedule("stray", PodSpec::in_namespace("street"))?
        .start()?;
    let talk = stray.begin_talk(&echo, server.at(8080))?;
    eventually(counter, DEADLINE, || {
        node.packets(counter).is_ok_and(|count| count >= 1.0)
    });
    if policy == "deny" {
        assert_eq!(echo.clients()?, [], "nobody got through");
        // Known at last, and no pod of the mesh.
        stray.announce()?;
    }
    assert_eq!(talk.end(&mut echo)?, Way::Direct);
    Ok(())
}

#[test]
fn a_pod_that_stays_unknown_is_treated_as_the_operator_said() -> Result<()> {
    let policies = [
        ("deny", "dropped_unknown_pod"),
        ("allow", "unknown_pod_allowed"),
    ];
    for (policy, counter) in policies {
        for (network, family) in [
            (PodNetwork::Routed, Family::V4),
            (PodNetwork::Bridged, Family::V6),
        ] {
            eprintln!("{policy} {network:?} {family:?}");
            after_the_hold(network, family, policy, counter)?;
        }
    }
    Ok(())
}
