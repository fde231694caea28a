//! The pods of a waypoint are replaced, as a rollout of its Deployment does it.

use std::sync::Arc;

use lab::{
    EndpointState::{Ready, Terminating},
    Kubelet, Lab, Mesh, Result,
    deploy::installed,
};

use crate::{
    shop::{DEADLINE, gateway, use_waypoint},
    stage::{Of, Stage},
    steady::Steady,
};

#[test]
fn no_request_fails_while_the_pods_of_a_waypoint_are_replaced() -> Result<()> {
    let lab = Lab::builder("rollout").build()?;
    let stage = Stage::open(&lab)?;
    let api = Arc::new(installed(&lab)?);
    let _mesh = Mesh::default()
        .control_arguments(&["--waypoint-image", "registry.example/ambit:7"])
        .in_cluster(&lab, &api)?
        .start(&lab)?;
    lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
    use_waypoint(&lab, "w")?;
    let kubelet = Kubelet::new(&lab, &api, "shop");
    kubelet.await_made("w")?;
    let mut pod = kubelet.start(("w", 0), "b")?;
    kubelet.await_ready(&pod)?;
    stage.eventually("requests to go through it", "/", |answer| {
        answer["body"]["headers"]["x-forwarded-client-cert"].is_array()
    });
    let steady = Steady::default();
    let server = stage.at(Of::Both, 80).parse().unwrap();
    steady.during(&stage.friend, server, || {
        for round in 1..=3 {
            steady.await_more(300);
            let next = kubelet.start(("w", round), ["b", "a"][round % 2])?;
            next.await_probe()?;
            kubelet.announce("w", &[(&pod, Ready), (&next, Ready)])?;
            steady.await_more(300);
            // Nobody waits for all nodes to have heard of it: the kubelet stops it at once.
            let pods = [(&pod, Terminating), (&next, Ready)];
            kubelet.announce("w", &pods)?;
            let said = std::mem::replace(&mut pod, next).end(2 * DEADLINE)?;
            assert!(!said.contains("cut off"), "{said}");
            kubelet.announce("w", &[(&pod, Ready)])?;
        }
        steady.await_more(300);
        Ok(())
    })?;
    let failures = steady.failures();
    let answered = steady.answered();
    assert_eq!(failures, Vec::<String>::new(), "{answered} were answered");
    assert!(answered > 2000, "{answered}");
    // Each connection was kept for as long as its waypoint lived.
    assert!(steady.connected() <= 6 * 10, "{}", steady.connected());
    Ok(())
}
