//! A new agent takes over from the one that runs: nothing fails, and what is open goes on.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    thread,
    time::{Duration, Instant},
};

use lab::{
    Generator, Lab, Load, LoadServer, Mesh, Pod, PodNetwork, Result, RunningMesh, Trio, Way,
    eventually, run_load, soak::Stage,
};

const DEADLINE: Duration = Duration::from_secs(40);
/// For which clients ask, while agents are replaced.
const LOAD: Duration = Duration::from_secs(12);
const PORT: u16 = 8080;
/// An agent may have connections open for as long as a test takes.
const PATIENT: [&str; 2] = ["--drain", "60s"];

/// Replaces the agents of both nodes, one after the other, twice.
fn replace_all(lab: &Lab, mesh: &mut RunningMesh<'_>) -> Result<()> {
    for _ in 0..2 {
        for node in ["a", "b"] {
            let before = mesh.replace_agent(lab.node(node))?.unwrap();
            // With nothing open for longer than a request, it has nothing to wait for.
            before.wait(DEADLINE)?.success()?;
        }
    }
    Ok(())
}

/// Short requests, a connection for each and in connections that stay, while agents are replaced.
fn under_load(mesh: Mesh, network: PodNetwork, loads: &[Load]) -> Result<()> {
    let lab = Lab::builder("takeover").pods(network).build()?;
    let pods = Trio::start(&lab)?;
    let servers = pods.servers();
    let _listening = servers.map(|server| LoadServer::start(server, PORT).unwrap());
    let mut mesh = mesh.agent_arguments(&PATIENT).start(&lab)?;
    let ask = |server: &Pod, load: &Load| {
        run_load(&pods.client, Generator::Own, server.at(PORT), load, LOAD)
    };
    let results = thread::scope(|scope| {
        let asking: Vec<_> = servers
            .into_iter()
            .flat_map(|server| loads.iter().map(move |load| (server, load)))
            .map(|(server, load)| scope.spawn(move || ask(server, load)))
            .collect();
        replace_all(&lab, &mut mesh)?;
        let results = asking.into_iter().map(|asking| asking.join().unwrap());
        results.collect::<Result<Vec<_>>>()
    })?;
    for result in results {
        assert_eq!(result.first_error, None, "{result:?}");
        assert!(result.requests > 100, "{result:?}");
    }
    Ok(())
}

#[test]
fn no_new_connection_fails_when_agents_are_replaced() -> Result<()> {
    let loads = [Load::Connect { clients: 2 }];
    under_load(Mesh::default(), PodNetwork::Routed, &loads)?;
    under_load(Mesh::default().carrying_all(), PodNetwork::Bridged, &loads)
}

#[test]
fn what_is_open_goes_on_and_its_agent_ends_with_it() -> Result<()> {
    let lab = Lab::builder("takeover").build()?;
    let pods = Trio::start(&lab)?;
    let [mut near, _far] = pods.servers().map(|pod| pod.echo(PORT).unwrap());
    let mut mesh = Mesh::default().agent_arguments(&PATIENT).start(&lab)?;
    assert_eq!(
        pods.client.talk(&mut near, pods.near.at(PORT))?,
        Way::Carried
    );
    let mut held = Vec::new();
    for server in pods.servers() {
        let mut connection = pods.client.hold(server.at(PORT))?;
        connection.echo().unwrap();
        held.push(connection);
    }
    let node = lab.node("a");
    let mut before = mesh.replace_agent(node)?.unwrap();
    for connection in &mut held {
        connection.echo().unwrap();
    }
    // What passes from pod to pod is the new one's, what went through an agent the old one's.
    eventually("the connection that passes is known", DEADLINE, || {
        let open = node.admin("/connections").unwrap();
        open.as_array().unwrap().len() == 1
    });
    assert!(before.is_running());
    drop(held);
    before.wait(DEADLINE)?.success()?;
    // The new one decides once more.
    for way in [Way::Carried, Way::Direct] {
        assert_eq!(pods.client.talk(&mut near, pods.near.at(PORT))?, way);
    }
    Ok(())
}

#[test]
fn an_agent_that_was_replaced_leads_again_when_nobody_does() -> Result<()> {
    let lab = Lab::builder("takeover").build()?;
    let pods = Trio::start(&lab)?;
    let _listening = pods.far.echo(PORT)?;
    let waiting = ["--when-replaced", "wait"];
    let mut mesh = Mesh::default().agent_arguments(&waiting).start(&lab)?;
    let node = lab.node("a");
    let mut before = mesh.replace_agent(node)?.unwrap();
    thread::sleep(Duration::from_secs(3));
    assert!(before.is_running());
    mesh.kill_agent("a");
    before.wait(DEADLINE)?.success()?;
    // Its supervisor starts it again.
    mesh.start_agent(node)?;
    assert_eq!(pods.client.call(pods.far.at(PORT))?, "echoed");
    Ok(())
}

#[test]
fn no_request_is_lost_when_control_waypoint_and_agents_are_replaced_in_turn() -> Result<()> {
    let lab = Lab::builder("upgrade").build()?;
    let stage = Stage::set(&lab)?;
    // So that certificates are renewed meanwhile, whoever is being replaced.
    let mut mesh = Mesh::default()
        .certificate_ttl("8s")
        .agent_arguments(&["--drain", "15s"])
        .start(&lab)?;
    let wire = stage.watch(&lab)?;
    let load = stage.requests()?;
    let serials = || {
        let told = |node| lab.node(node).admin("/certificates").unwrap();
        let all = ["a", "b"].map(told).into_iter();
        let serials = all.flat_map(|told| told.as_array().cloned().unwrap());
        serials.map(|it| it["serial"].clone()).collect::<Vec<_>>()
    };
    for turn in 0..2 {
        let failures = load.failures();
        mesh.replace_control()?;
        let before = serials();
        eventually("certificates by the new control", DEADLINE, || {
            serials().iter().all(|serial| !before.contains(serial))
        });
        // With it the waypoint.
        for node in ["b", "a"] {
            let replaced = mesh.replace_agent(lab.node(node))?.unwrap();
            replaced.wait(DEADLINE)?.success()?;
        }
        load.await_answers(Instant::now(), DEADLINE)?;
        assert_eq!(load.failures(), failures, "{turn}: {:?}", load.why());
    }
    load.check()?;
    wire.check()?;
    Ok(())
}
