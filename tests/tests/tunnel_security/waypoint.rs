//! A workload that demands its waypoint, and tunnels to it from others.

use std::{net::SocketAddr, time::Duration};

use ambit::identity::Identity;
use http::{Method, StatusCode};
use lab::{Lab, Mesh, PodSpec, Result, eventually};

use crate::{
    credentials::{Forger, Life, account},
    hbone::Client,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Waypoint shop/w for workloads, on node b, and another of that name, on node a.
const WAYPOINTS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: w
  namespace: shop
  labels: { istio.io/waypoint-for: workload }
  annotations: { ambit.dev/waypoint-node: b }
spec: { gatewayClassName: ambit-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: w
  namespace: street
  labels: { istio.io/waypoint-for: all }
  annotations: { ambit.dev/waypoint-node: a }
spec: { gatewayClassName: ambit-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
";

#[test]
fn a_genuine_certificate_of_another_than_the_waypoint_opens_nothing_past_it() -> Result<()> {
    let lab = Lab::builder("pastwaypoint").build()?;
    lab.namespace("shop").labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", "w"),
    ])?;
    let pod = |node, name| {
        let spec = PodSpec::in_namespace("shop").service_account(name);
        lab.node(node).pod(name, spec)
    };
    let (buyer, till) = (pod("a", "buyer")?, pod("b", "till")?);
    // It has the waypoint's service account, and isn't the waypoint.
    let namesake = lab.node("a").pod(
        "namesake",
        PodSpec::in_namespace("shop").service_account("w"),
    )?;
    lab.announce_nodes()?;
    lab.apply("gateways.yaml", WAYPOINTS)?;
    let mut echo = till.peer_server(["echo-server", "--listen", "0.0.0.0:80"])?;
    let mut mesh = Mesh::default().start(&lab)?;
    let directory = lab.directory().join("thief");
    let ours = Forger::with_root_of(mesh.state_directory(), &directory, "cluster.local");
    let to = SocketAddr::new(lab.node("b").address(), 15008);
    let at = till.at(80).to_string();
    let claimed = format!("for=\"{}\"", buyer.at(4000));
    let call = |identity: &Identity, forwarded: Option<&str>| {
        let certificate = ours.certificate(identity, Life::Valid, &ours);
        let client = Client::new(lab.node("a"), to, &certificate, &account("till"));
        client.call(Method::CONNECT, &at, forwarded, "hello")
    };

    let foreign = Identity::new("cluster.local", "street", "w");
    for identity in [account("buyer"), account("till"), foreign] {
        for forwarded in [None, Some(claimed.as_str())] {
            let answer = call(&identity, forwarded)?;
            assert_eq!(answer, Ok(StatusCode::UNAUTHORIZED), "{identity}");
        }
        let told = format!("src.identity={identity}");
        mesh.agent("b").await_stderr(DEADLINE, |line| {
            line.contains("demands that connections come through its waypoint shop/w")
                && line.contains(&told)
        })?;
    }
    assert_eq!(echo.reports()?, [] as [serde_json::Value; 0]);
    // The waypoint's own is what it takes, and through the waypoint the buyer arrives.
    assert_eq!(call(&account("w"), None)?, Ok(StatusCode::OK));
    eventually("the buyer to go through the waypoint", DEADLINE, || {
        buyer.call(till.at(80)).is_ok_and(|told| told == "echoed")
    });

    // Whoever shares its account doesn't get its certificate.
    echo.await_reports(2, DEADLINE)?;
    assert_ne!(namesake.call(till.at(80))?, "echoed");
    assert_eq!(echo.reports()?.len(), 2);
    mesh.agent("a").await_stderr(DEADLINE, |line| {
        line.contains("workloads need another service account")
    })?;
    Ok(())
}
