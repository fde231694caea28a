//! Plaintext that kube-proxy's NAT has translated on its way to an enrolled pod.

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result};

#[test]
fn clients_outside_the_mesh_reach_a_permissive_pod_through_nat() -> Result<()> {
    for (network, family, rp_filter) in [
        (PodNetwork::Routed, Family::V4, 0),
        (PodNetwork::Routed, Family::V6, 0),
        (PodNetwork::Bridged, Family::V4, 1),
        (PodNetwork::Bridged, Family::V6, 0),
        // Strict: a packet must come in where its answer would go out.
        (PodNetwork::Routed, Family::V4, 1),
    ] {
        let lab = Lab::builder("nat")
            .pods(network)
            .family(family)
            .rp_filter(rp_filter)
            .build()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("legacy").not_enrolled()?;
        let near = lab.node("a").pod("near", PodSpec::in_namespace("legacy"))?;
        let far = lab.node("b").pod("far", PodSpec::in_namespace("legacy"))?;
        let server = lab.node("a").pod("server", PodSpec::in_namespace("shop"))?;
        let service = lab
            .service("shop", "web")
            .port(80, 8080)
            .endpoint(&server)
            .apply()?;
        for node in lab.nodes() {
            node.kube_proxy(&service)?;
        }
        let _mesh = Mesh::default().start(&lab)?;
        let _echo = server.peer_server(["echo-server", "--listen", "[::]:8080", "--dual-stack"])?;

        let diverted = lab.node("a").packets("diverted")?;
        for client in [&near, &far] {
            // More than a window's worth, so that acknowledgements pass through NAT both ways.
            let vip = service.at(80).to_string();
            let many = ["--requests", "20", "--bytes", "100000"];
            let told = client.peer(["echo-client", "--connect", &vip].into_iter().chain(many))?;
            assert_eq!(told["succeeded"], 1, "{network:?} {family:?}: {told}");
        }
        assert!(
            lab.node("a").packets("diverted")? >= diverted + 2.0,
            "{network:?} {family:?}: the connections went past the agent"
        );
    }
    Ok(())
}
