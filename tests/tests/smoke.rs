//! The main job: pods of two nodes talk as ever, and the wire shows only TLS.

use lab::{Mesh, PodSpec, Result, Way, on_each_network};

/// How each request of the lab's echo client begins: as good a marker as any.
const MARKER: &str = "0/0 0/0 0/0 0/0 ";
/// Tunnels between agents, and their certificates' way.
const PORTS_OF_THE_MESH: [u16; 2] = [15008, 15012];

#[test]
fn enrolled_pods_talk_and_the_wire_shows_only_tls() -> Result<()> {
    on_each_network("smoke", |lab| {
        lab.namespace("shop").enrolled()?;
        let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
        let server = lab.node("b").pod("server", PodSpec::in_namespace("shop"))?;
        let mut echo = server.echo(8080)?;

        let wire = lab.wire_capture()?;
        let inside = server.capture("eth0", "tcp")?;
        let _mesh = Mesh::default().start(lab)?;
        let at = server.at(8080);
        let told = client.peer([
            "echo-client",
            "--connect",
            &at.to_string(),
            "--requests",
            "20",
        ])?;
        assert_eq!(told["succeeded"], 1, "{told}");
        assert_eq!(client.talk(&mut echo, at)?, Way::Carried);

        assert!(
            inside.stop()?.iter().any(|packet| packet.contains(MARKER)),
            "the server got it in clear, so it would be seen on the wire too"
        );
        let packets = wire.stop()?;
        assert!(
            packets.iter().any(|packet| packet.has_port(15008)),
            "there is a tunnel"
        );
        for packet in &packets {
            assert!(!packet.contains(MARKER), "in clear on the wire: {packet:?}");
            assert!(
                !packet.is_tcp() || PORTS_OF_THE_MESH.iter().any(|port| packet.has_port(*port)),
                "not the mesh's own: {packet:?}"
            );
        }
        // The echo client's connection, and the one that was looked at.
        let clients = echo.clients()?;
        assert_eq!(clients.len(), 2);
        assert!(
            clients
                .iter()
                .all(|address| address.ip() == client.address())
        );
        Ok(())
    })
}
