//! The pods of a waypoint are replaced, as a rollout of its Deployment does it.

use lab::{Lab, Mesh, Result};

use super::{
    await_made, installed,
    kubelet::{Running, State, announce},
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
    let api = installed(&lab)?;
    let _mesh = Mesh::default()
        .control_arguments(&["--waypoint-image", "registry.example/ambit:7"])
        .in_cluster(&lab, &api)?
        .start(&lab)?;
    lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
    use_waypoint(&lab, "w")?;
    await_made(&api);
    let mut pod = Running::start(&lab, &api, ("w", 0), "b")?;
    pod.await_ready(&api)?;
    stage.eventually("requests to go through it", "/", |answer| {
        answer["body"]["headers"]["x-forwarded-client-cert"].is_array()
    });
    let steady = Steady::default();
    let server = stage.at(Of::Both, 80).parse().unwrap();
    steady.during(&stage.friend, server, || {
        for round in 1..=3 {
            steady.await_more(300);
            let next = Running::start(&lab, &api, ("w", round), ["b", "a"][round % 2])?;
            next.await_probe();
            announce(&api, "w", &[(&pod, State::Ready), (&next, State::Ready)])?;
            steady.await_more(300);
            // Nobody waits for all nodes to have heard of it: the kubelet stops it at once.
            let pods = [(&pod, State::Terminating), (&next, State::Ready)];
            announce(&api, "w", &pods)?;
            let said = std::mem::replace(&mut pod, next).end(2 * DEADLINE)?;
            assert!(!said.contains("cut off"), "{said}");
            announce(&api, "w", &[(&pod, State::Ready)])?;
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
