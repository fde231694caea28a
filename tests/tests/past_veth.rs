//! A CNI that delivers past the host side of the pods' veths opens no way past the mesh.

use std::time::Duration;

use lab::{
    Family, Lab, Mesh, NODE_INTERFACE, Node, PeerServer, Place, Pod, PodSpec, Result, Way,
    eventually,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A server on node a, to which everything that comes in by the wire or from the neighbour goes past
/// its veth.
fn server(node: &Node, name: &str, spec: PodSpec, neighbour: &Pod) -> Result<(Pod, PeerServer)> {
    let pod = node.pod(name, spec)?;
    for device in [NODE_INTERFACE, neighbour.host_interface()] {
        node.deliver_past_veth(device, &pod)?;
    }
    let echo = pod.echo(8080)?;
    Ok((pod, echo))
}

fn past(node: &Node) -> Result<f64> {
    node.packets("dropped_past_veth")
}

#[test]
fn what_comes_past_a_pods_veth_meets_policy_all_the_same() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::builder("past").family(family).build()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("vault").enrolled()?;
        lab.namespace("vault").strict()?;
        lab.namespace("street").not_enrolled()?;
        let (node, other) = (lab.node("a"), lab.node("b"));
        let street = || PodSpec::in_namespace("street");
        let neighbour = node.pod("neighbour", street())?;
        let stranger = other.pod("stranger", street())?;
        let member = other.pod("member", PodSpec::in_namespace("shop"))?;
        let open =
            PodSpec::in_namespace("shop").annotation("ambit.dev/exclude-inbound-ports", "8081");
        let (open, mut to_open) = server(node, "open", open, &neighbour)?;
        let strict = PodSpec::in_namespace("vault");
        let (strict, mut to_strict) = server(node, "strict", strict, &neighbour)?;
        let mut excluded = open.echo(8081)?;

        // The imitation is one: the veth's host side sees nothing of what the pod receives.
        let seen = node.capture(open.host_interface(), "tcp")?;
        assert_eq!(stranger.talk(&mut to_open, open.at(8080))?, Way::Direct);
        let seen = seen.stop()?;
        assert!(seen.iter().any(|packet| packet.source == open.address()));
        let received = seen
            .iter()
            .find(|packet| packet.destination == open.address());
        assert_eq!(received, None, "{family:?}: by way of the veth");

        let mut mesh = Mesh::default().start(&lab)?;
        let clients: [(&str, &Place); 2] = [("elsewhere", &stranger), ("neighbour", &neighbour)];
        let mut given_away = 0.0;
        for (name, client) in clients {
            let case = format!("{family:?}: from {name}");
            let way = client.talk(&mut to_open, open.at(8080))?;
            assert_eq!(way, Way::Carried, "{case} to a PERMISSIVE pod");
            let way = client.talk(&mut to_strict, strict.at(8080))?;
            assert_eq!(way, Way::reset(), "{case} to a STRICT pod");
            let way = client.talk(&mut excluded, open.at(8081))?;
            assert_eq!(way, Way::Direct, "{case} to an excluded port");
            if name == "elsewhere" {
                given_away = past(node)?;
            }
        }
        // The first answer of each pod was enough.
        assert!(given_away >= 2.0, "{family:?}: {given_away}");
        assert_eq!(past(node)?, given_away, "{family:?}");
        let mut named = |pod: &str| {
            mesh.agent("a")
                .stderr()
                .lines()
                .any(|line| line.contains("past the host side") && line.contains(pod))
        };
        eventually("the agent to name the pods", DEADLINE, || {
            named("shop/open") && named("vault/strict")
        });

        let way = member.talk(&mut to_strict, strict.at(8080))?;
        assert_eq!(way, Way::Carried, "{family:?}: from the mesh");
        let way = node.talk(&mut to_strict, strict.at(8080))?;
        assert_eq!(way, Way::Direct, "{family:?}: from the node itself");

        let before = to_open.clients()?;
        mesh.kill_agent("a");
        let talk = stranger.begin_talk(&to_open, open.at(8080))?;
        let way = stranger.talk(&mut excluded, open.at(8081))?;
        assert_eq!(way, Way::Direct, "{family:?}: excluded, without an agent");
        assert_eq!(to_open.clients()?, before, "{family:?}: nobody got through");
        mesh.start_agent(node)?;
        assert_eq!(talk.end(&mut to_open)?, Way::Carried, "{family:?}: late");
    }
    Ok(())
}

/// In a pod nobody listens for HBONE: its refusal must not be the answer.
#[test]
fn hbone_for_a_pods_address_is_taken_although_it_comes_past_the_veth() -> Result<()> {
    let lab = Lab::builder("hbone").build()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    let node = lab.node("a");
    let street = || PodSpec::in_namespace("street");
    let neighbour = node.pod("neighbour", street())?;
    let stranger = lab.node("b").pod("stranger", street())?;
    let (pod, _echo) = server(node, "open", PodSpec::in_namespace("shop"), &neighbour)?;
    assert_eq!(stranger.call(pod.at(15008))?, "refused");
    let _mesh = Mesh::default().start(&lab)?;
    assert_ne!(stranger.call(pod.at(15008))?, "refused");
    assert!(past(node)? >= 1.0);
    // What nobody listens for besides is refused by the agent's word or the pod's, as ever.
    let (called, captured) = node.counting("captured_new", || stranger.call(pod.at(9)))?;
    assert_ne!(called, "echoed");
    assert_eq!(captured, 1.0);
    Ok(())
}
