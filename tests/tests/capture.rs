//! Connections of enrolled pods are captured, wherever the server is and whatever its socket.

use lab::{Family, Lab, Mesh, Pod, PodNetwork, PodSpec, Result, RunningMesh, Way, on_each_network};

fn shop(service_account: &str) -> PodSpec {
    PodSpec::in_namespace("shop").service_account(service_account)
}

/// One client, and a server on either node.
fn captured(lab: &Lab) -> Result<()> {
    lab.namespace("shop").enrolled()?;
    let client = lab.node("a").pod("client", shop("buyer"))?;
    let near = lab.node("a").pod("near", shop("till"))?;
    let far = lab.node("b").pod("far", shop("till"))?;
    let mut mesh = Mesh::default().carrying_all().start(lab)?;

    for server in [&near, &far] {
        let mut echo = server.echo(8080)?;
        for at in server.all_at(8080) {
            let (way, captured) = lab
                .node("a")
                .counting("captured_new", || client.talk(&mut echo, at))?;
            assert_eq!(way, Way::Carried, "{at}");
            assert!(
                captured >= 1.0,
                "captured_new counts the connection to {at}: {captured}"
            );
        }
    }
    assert_logged(&mut mesh, &client, &near, &far)
}

/// Each end's agent has a line for each connection, with both identities.
fn assert_logged(mesh: &mut RunningMesh<'_>, client: &Pod, near: &Pod, far: &Pod) -> Result<()> {
    let identities = [
        "src.identity=spiffe://cluster.local/ns/shop/sa/buyer",
        "dst.identity=spiffe://cluster.local/ns/shop/sa/till",
        "connection complete",
    ];
    let lines = [
        ("a", near, "outbound"),
        ("a", near, "inbound"),
        ("a", far, "outbound"),
        ("b", far, "inbound"),
    ];
    for (node, server, direction) in lines {
        for (own, theirs) in client.addresses().iter().zip(server.all_at(8080)) {
            // Behind a tunnel, what the log calls the destination's address is the agent's.
            let (source, destination) = (own.to_string(), theirs.to_string());
            let direction = format!("direction=\"{direction}\"");
            let mut parts = vec![&*source, &*destination, &*direction];
            parts.extend(identities);
            mesh.await_access(node, &parts)?;
        }
    }
    Ok(())
}

#[test]
fn enrolled_pods_are_captured_and_logged_with_both_identities() -> Result<()> {
    on_each_network("captured", captured)
}

#[test]
fn a_dual_stack_pod_is_captured_by_either_family() -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        captured(
            &Lab::builder("dual")
                .pods(network)
                .family(Family::Dual)
                .build()?,
        )?;
    }
    Ok(())
}

#[test]
fn what_isnt_the_meshs_is_left_alone() -> Result<()> {
    on_each_network("alone", |lab| {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let outside = || PodSpec::in_namespace("street");
        let client = lab.node("a").pod("client", shop("buyer"))?;
        let passer = lab.node("a").pod("passer", outside())?;
        let near = lab.node("a").pod("near", outside())?;
        let far = lab.node("b").pod("far", outside())?;
        let _mesh = Mesh::default().start(lab)?;

        let listen = ["echo-server", "--listen", "[::]:8080", "--dual-stack"];
        let mut servers = vec![
            (near.echo(8080)?, near.at(8080)),
            (far.echo(8080)?, far.at(8080)),
        ];
        for node in lab.nodes() {
            servers.push((node.peer_server(listen)?, (node.address(), 8080).into()));
        }
        let node = lab.node("a");
        for (server, at) in &mut servers {
            for (pod, reason) in [(&client, "not_mesh"), (&passer, "not_enrolled")] {
                let (way, counted) = node.counting(reason, || pod.talk(server, *at))?;
                assert_eq!(way, Way::Direct, "{} to {at}", pod.name());
                assert!(counted >= 1.0, "{} to {at} counts as {reason}", pod.name());
            }
        }
        assert_eq!(node.packets("captured_new")?, 0.0);
        Ok(())
    })
}
