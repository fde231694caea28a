//! Plaintext that comes through a port of the node, with the node's own address as its source.

use std::net::SocketAddr;

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result, Way};

#[test]
fn traffic_through_a_node_port_meets_peer_authentication() -> Result<()> {
    for (network, family, rp_filter) in [
        (PodNetwork::Routed, Family::V4, 0),
        (PodNetwork::Routed, Family::V4, 1),
        (PodNetwork::Bridged, Family::V4, 0),
        (PodNetwork::Bridged, Family::V4, 1),
        (PodNetwork::Routed, Family::V6, 0),
        (PodNetwork::Bridged, Family::V6, 0),
    ] {
        let case = format!("{network:?} {family:?} rp_filter {rp_filter}");
        let lab = Lab::builder("nodeport")
            .pods(network)
            .family(family)
            .rp_filter(rp_filter)
            .build()?;
        through_node_ports(&lab, &case)?;
    }
    Ok(())
}

fn through_node_ports(lab: &Lab, case: &str) -> Result<()> {
    lab.namespace("vault").enrolled()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    lab.namespace("vault").strict()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let strict = a.pod("strict", PodSpec::in_namespace("vault"))?;
    let open = a.pod("open", PodSpec::in_namespace("shop"))?;
    let passer = b.pod("passer", PodSpec::in_namespace("street"))?;
    let services = [
        lab.service("shop", "open")
            .port(80, 8080)
            .node_port(30080)
            .endpoint(&open)
            .apply()?,
        lab.service("vault", "strict")
            .port(80, 8080)
            .node_port(30081)
            .endpoint(&strict)
            .apply()?,
    ];
    for service in &services {
        a.kube_proxy(service)?;
    }
    let (_to_open, mut to_strict) = (open.echo(8080)?, strict.echo(8080)?);
    let at = |port| SocketAddr::new(a.address(), port);
    // Until there is a mesh, both are open: the rules lead there, and answers come back.
    for port in [30080, 30081] {
        assert_eq!(
            passer.call(at(port))?,
            "echoed",
            "{case}: {port} without a mesh"
        );
    }
    let _mesh = Mesh::default().start(lab)?;

    for (name, client) in [
        ("a process of the other node", &**b),
        ("a pod there", &passer),
    ] {
        // More than a window's worth, so that acknowledgements pass through NAT both ways.
        let connect = at(30080).to_string();
        let many = ["--requests", "2", "--bytes", "300000"];
        // A masquerade makes the node the source, which over IPv4 may come in by loopback only.
        let reason = if at(30080).is_ipv4() {
            "diverted_through_loopback"
        } else {
            "diverted"
        };
        let (told, diverted) = a.counting(reason, || {
            client.peer(
                ["echo-client", "--connect", &connect]
                    .into_iter()
                    .chain(many),
            )
        })?;
        assert_eq!(
            told["succeeded"], 1,
            "{case}: {name} to the PERMISSIVE pod: {told}"
        );
        assert!(diverted >= 1.0, "{case}: {name} went past the agent");
        let way = client.talk(&mut to_strict, at(30081))?;
        assert_eq!(way, Way::reset(), "{case}: {name} to the STRICT pod");
    }
    Ok(())
}
