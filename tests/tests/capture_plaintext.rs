//! Plaintext for an enrolled pod: the node's own processes pass, everybody else meets
//! PeerAuthentication.

use std::net::SocketAddr;

use lab::{Lab, Mesh, PeerServer, Place, Pod, PodSpec, Result, Way, on_each_network};

/// An enrolled pod on node a whose namespace insists on mutual TLS, one whose namespace doesn't.
struct Stage {
    strict: Pod,
    open: Pod,
    to_strict: PeerServer,
    to_open: PeerServer,
}

impl Stage {
    fn set(lab: &Lab) -> Result<Self> {
        lab.namespace("vault").enrolled()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        lab.namespace("vault").strict()?;
        let strict = lab
            .node("a")
            .pod("strict", PodSpec::in_namespace("vault"))?;
        let open = lab.node("a").pod("open", PodSpec::in_namespace("shop"))?;
        Ok(Self {
            to_strict: strict.echo(8080)?,
            to_open: open.echo(8080)?,
            strict,
            open,
        })
    }

    /// The ways from a place to both pods' own addresses.
    fn ways(&mut self, from: &Place) -> Result<[Way; 2]> {
        let (strict, open) = (self.strict.at(8080), self.open.at(8080));
        self.ways_by(from, strict, open)
    }

    fn ways_by(&mut self, from: &Place, strict: SocketAddr, open: SocketAddr) -> Result<[Way; 2]> {
        Ok([
            from.talk(&mut self.to_strict, strict)?,
            from.talk(&mut self.to_open, open)?,
        ])
    }
}

#[test]
fn probes_of_the_node_pass_and_other_plaintext_meets_peer_authentication() -> Result<()> {
    on_each_network("plaintext", |lab| {
        let mut stage = Stage::set(lab)?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let outside = || PodSpec::in_namespace("street");
        let near = a.pod("near", outside())?;
        let far = b.pod("far", outside())?;
        let mut mesh = Mesh::default().start(lab)?;

        let (ways, counted) = a.counting("node_process", || stage.ways(a))?;
        assert_eq!(ways, [Way::Direct, Way::Direct], "the node's own process");
        assert!(counted >= 2.0, "counted as such: {counted}");

        let strangers: [(&str, &Place); 3] = [
            ("pod of the same node", &near),
            ("pod of another", &far),
            ("other node", b),
        ];
        for (name, place) in strangers {
            assert_eq!(stage.ways(place)?, [Way::reset(), Way::Carried], "{name}");
        }
        let refused = format!("{}", stage.strict.at(8080));
        mesh.await_access("a", &[&refused, "connection denied", "vault/default"])?;
        assert_eq!(
            stage.to_strict.clients()?.len(),
            1,
            "the node's process, and nobody else"
        );
        Ok(())
    })
}

#[test]
fn plaintext_that_came_through_kube_proxy_meets_peer_authentication_too() -> Result<()> {
    on_each_network("dnat", |lab| {
        let mut stage = Stage::set(lab)?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let near = a.pod("near", PodSpec::in_namespace("street"))?;
        let far = b.pod("far", PodSpec::in_namespace("street"))?;
        let services = [
            lab.service("vault", "strict")
                .port(80, 8080)
                .endpoint(&stage.strict)
                .apply()?,
            lab.service("shop", "open")
                .port(80, 8080)
                .endpoint(&stage.open)
                .apply()?,
        ];
        for node in lab.nodes() {
            for service in &services {
                node.kube_proxy(service)?;
            }
        }
        let _mesh = Mesh::default().start(lab)?;
        let [strict, open] = services.map(|service| service.at(80));
        for place in [&near, &far] {
            let ways = stage.ways_by(place, strict, open)?;
            assert_eq!(ways, [Way::reset(), Way::Carried], "{}", place.name());
        }
        Ok(())
    })
}
