//! Connections that are open when a pod comes into the mesh, or leaves it.

use std::{net::SocketAddr, time::Duration};

use lab::{Held, Lab, Mesh, PeerServer, Pod, PodSpec, Result, Way, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

/// A client on node a, and an echo server on each node.
struct Stage {
    client: Pod,
    near: (PeerServer, SocketAddr),
    far: (PeerServer, SocketAddr),
    _servers: [Pod; 2],
}

impl Stage {
    fn set(lab: &Lab) -> Result<Self> {
        let client = lab.node("a").pod("client", shop())?;
        let near = lab.node("a").pod("near", shop())?;
        let far = lab.node("b").pod("far", shop())?;
        Ok(Self {
            near: (near.echo(8080)?, near.at(8080)),
            far: (far.echo(8080)?, far.at(8080)),
            client,
            _servers: [near, far],
        })
    }

    /// Opens a connection to each server and uses it once.
    fn open(&self) -> Result<[Held; 2]> {
        let mut held = [
            self.client.hold(self.near.1)?,
            self.client.hold(self.far.1)?,
        ];
        for held in &mut held {
            held.echo().expect("the connection works");
        }
        Ok(held)
    }

    /// Waits until new connections to both servers go this way.
    fn await_way(&mut self, way: &Way) {
        for (echo, at) in [&mut self.near, &mut self.far] {
            eventually(&format!("{way:?} to {at}"), DEADLINE, || {
                self.client.talk(echo, *at).is_ok_and(|seen| seen == *way)
            });
        }
    }

    /// Uses the connections again, ends them, and makes sure that nobody ever was in between.
    fn go_on(&self, lab: &Lab, held: [Held; 2]) -> Result<()> {
        let servers = [(&self.near.0, false), (&self.far.0, true)];
        for (mut held, (server, is_far)) in held.into_iter().zip(servers) {
            let older = || -> Result<Vec<f64>> {
                lab.nodes()
                    .iter()
                    .map(|node| node.packets("older_connection"))
                    .collect()
            };
            let before = older()?;
            held.echo().expect("the connection goes on");
            let after = older()?;
            assert!(after[0] > before[0], "node a counts it as older");
            if is_far {
                assert!(after[1] > before[1], "node b counts it as older");
            }
            let own = held.address()?;
            drop(held);
            eventually("the server saw the client's own port", DEADLINE, || {
                server.clients().is_ok_and(|clients| clients.contains(&own))
            });
        }
        Ok(())
    }
}

#[test]
fn connections_older_than_the_enrolment_go_on_and_new_ones_are_captured() -> Result<()> {
    on_each_network("older", |lab| {
        lab.namespace("shop").not_enrolled()?;
        let mut stage = Stage::set(lab)?;
        let _mesh = Mesh::default().start(lab)?;
        let held = stage.open()?;
        stage.await_way(&Way::Direct);

        lab.namespace("shop").enrolled()?;
        stage.await_way(&Way::Carried);
        stage.go_on(lab, held)
    })
}

#[test]
fn connections_older_than_the_agent_go_on_and_new_ones_are_captured() -> Result<()> {
    on_each_network("before", |lab| {
        lab.namespace("shop").enrolled()?;
        let mut stage = Stage::set(lab)?;
        let held = stage.open()?;
        let _mesh = Mesh::default().start(lab)?;
        stage.await_way(&Way::Carried);
        stage.go_on(lab, held)
    })
}

#[test]
fn a_pod_that_leaves_the_mesh_loses_what_was_carried_and_connects_by_itself() -> Result<()> {
    on_each_network("leave", |lab| {
        lab.namespace("shop").enrolled()?;
        let mut stage = Stage::set(lab)?;
        let mut mesh = Mesh::default().carrying_all().start(lab)?;
        let held = stage.open()?;
        stage.await_way(&Way::Carried);

        lab.namespace("shop").not_enrolled()?;
        for mut held in held {
            let end = held.await_end().expect_err("cut off, not ended in order");
            assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{end}");
        }
        stage.await_way(&Way::Direct);
        // For one that was tunnelled, either end's agent may be the first to say so.
        let near = stage.near.1.to_string();
        mesh.await_access(
            "a",
            &[&near, "connection failed", "shop/client left the mesh"],
        )?;

        // And back again: what it opened by itself is now older.
        let held = stage.open()?;
        lab.namespace("shop").enrolled()?;
        stage.await_way(&Way::Carried);
        stage.go_on(lab, held)
    })
}
