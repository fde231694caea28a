//! Bytes between applications and their node's agent go past TCP, and no application sees it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{collections::BTreeSet, env, path::PathBuf, time::Duration};

use ambit_common::{map::FlowKey, passed::Passed};
use aya::maps::{HashMap as BpfMap, Map, MapData, SockHash};
use lab::{
    Child, Lab, LoadServer, Mesh, Node, Pod, PodSpec, Result, Trio, eventually, load_program,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);

/// Beside `lab-peer`, which cargo builds with it.
fn program(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let mut found = own.ancestors().skip(1).take(2).map(|path| path.join(name));
    found.find(|path| path.is_file()).unwrap()
}

fn serve(pod: &Pod, arguments: &[&str]) -> Result<Child> {
    let listen = ["serve", "--listen", "0.0.0.0:8080"];
    let mut server = pod.spawn(program("lab-async"), listen.iter().chain(arguments))?;
    server.await_json("listening", DEADLINE)?;
    Ok(server)
}

fn call(client: &Pod, server: &Pod, arguments: &[&str]) -> Result<Value> {
    let command = client
        .command(program("lab-async"))
        .args(["call", "--connect", &server.at(8080).to_string()])
        .args(arguments);
    command.deadline(DEADLINE).run()?.json()
}

fn events(node: &Node, event: &str) -> Result<f64> {
    node.metric("ambit_splice_events_total", &[("event", event)])
}

/// How many sockets are members.
fn members(node: &Node) -> usize {
    let pin = node.bpf_directory().join("ambit/maps/SPLICE_SOCKETS");
    let members = MapData::from_pin(pin).unwrap();
    let members = SockHash::<_, u64>::try_from(Map::SockHash(members)).unwrap();
    members.keys().count()
}

#[test]
fn bytes_go_past_tcp_and_arrive_whole_under_slow_and_fast_readers() -> Result<()> {
    // How each side reads.
    let fast: &[&str] = &[];
    let late: &[&str] = &["--pause-ms", "1500"];
    let slow: &[&str] = &["--read-us", "300"];
    let table = [
        (fast, fast),
        (late, fast),
        (fast, late),
        (slow, fast),
        (fast, slow),
        (late, late),
    ];
    // A low limit has every connection switch to TCP and back all the time.
    for (limit, bytes) in [("1048576", "12000000"), ("131072", "12000000")] {
        let lab = Lab::builder("splice").build()?;
        let pods = Trio::start(&lab)?;
        let _mesh = Mesh::default()
            .agent_arguments(&["--splice-limit", limit])
            .start(&lab)?;
        for (serving, calling) in table {
            let bytes = ["--bytes", bytes];
            let serving: Vec<&str> = serving.iter().chain(&bytes).copied().collect();
            let calling: Vec<&str> = calling.iter().chain(&bytes).copied().collect();
            for server in [&pods.near, &pods.far] {
                let mut listening = serve(server, &serving)?;
                let told = call(&pods.client, server, &calling)?;
                let story = format!(
                    "{limit} {serving:?} {calling:?} {}",
                    server.host_interface()
                );
                assert_eq!(told["end"], "eof", "{story}: {told}");
                let told = listening.await_json("end", DEADLINE)?;
                assert_eq!(told["end"], "eof", "{story}: {told}");
            }
        }
        for node in lab.nodes() {
            for event in ["joined", "redirected"] {
                assert!(
                    events(node, event)? > 0.0,
                    "{limit} {} {event}",
                    node.name()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn thousands_of_short_connections_leave_nothing_behind() -> Result<()> {
    const CONNECTIONS: u32 = 3000;
    let lab = Lab::builder("short").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let times = ["--end-last", "--times", "6"];
    let _listening = serve(&pods.far, &times)?;
    let connections = CONNECTIONS.to_string();
    let many = ["--connections", &connections, "--at-once", "32"];
    let many = [&times[..], &many].concat();
    let told = call(&pods.client, &pods.far, &many)?;
    assert_eq!(told["succeeded"], CONNECTIONS, "{told}");
    for node in lab.nodes() {
        // An application that is done before the agent has looked has nothing to be spliced.
        let joined = events(node, "joined")?;
        let most = f64::from(CONNECTIONS) * 0.75;
        assert!(joined >= most, "{}: {joined}", node.name());
        eventually("no member left", DEADLINE, || members(node) == 0);
    }
    Ok(())
}

#[test]
fn a_connection_for_one_question_isnt_worth_a_splice() -> Result<()> {
    let lab = Lab::builder("question").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let _listening = serve(&pods.far, &["--end-last"])?;
    let joined = || -> Result<Vec<f64>> {
        let nodes = lab.nodes().iter();
        nodes.map(|node| events(node, "joined")).collect()
    };
    let before = joined()?;
    let many = ["--end-last", "--connections", "20"];
    let told = call(&pods.client, &pods.far, &many)?;
    assert_eq!(told["succeeded"], 20, "{told}");
    assert_eq!(joined()?, before);
    Ok(())
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() -> Result<()> {
    let lab = Lab::builder("many").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let _serving = LoadServer::start(&pods.near, 8080)?;
    let node = lab.node("a");
    let at = pods.near.at(8080).to_string();
    while node.packets("passed_new")? < 100_000.0 {
        let load = ["connect", "--clients", "16", "--time-ms", "5000"];
        let load = load.into_iter().chain(["--connect", &at]);
        let load = pods.client.command(load_program()?).args(load);
        load.deadline(DEADLINE).run()?.success()?;
    }
    let pin = node.bpf_directory().join("ambit/maps/PASSED");
    let passed = Map::HashMap(MapData::from_pin(pin).unwrap());
    let passed = BpfMap::<_, FlowKey, Passed>::try_from(passed).unwrap();
    eventually("no member to be left", DEADLINE, || members(node) == 0);
    eventually("no connection to be left", DEADLINE, || {
        passed.keys().count() == 0
    });
    let lost = node.packets("event_lost")?;
    let count = |what: &str| {
        let name = format!("istio_tcp_connections_{what}_total");
        node.metric(&name, &[("reporter", "source")])
    };
    // The agent may have events of the last ones to work off, and each count is of a page of its own.
    eventually("every end to be told of", DEADLINE, || {
        count("closed").unwrap() == count("opened").unwrap()
    });
    let told = count("closed")?;
    assert!(
        told + lost >= 100_000.0,
        "{told} told of, {lost} events lost"
    );
    Ok(())
}

/// What the source's node says its pods have sent and received.
fn told(node: &Node) -> [f64; 2] {
    ["sent", "received"].map(|way| {
        let metric = format!("istio_tcp_{way}_bytes_total");
        node.metric(&metric, &[("reporter", "source")])
            .unwrap_or_default()
    })
}

#[test]
fn between_pods_of_one_node_bytes_go_past_tcp_and_are_counted_to_the_byte() -> Result<()> {
    const BYTES: u32 = 30_000_000;
    const CONNECTIONS: u32 = 10;
    // The default, and a limit that has each connection switch all the time.
    for limit in ["1048576", "262144"] {
        let lab = Lab::builder("between").build()?;
        let pods = Trio::start(&lab)?;
        let _mesh = Mesh::default()
            .agent_arguments(&["--splice-limit", limit])
            .start(&lab)?;
        let node = lab.node("a");
        let bytes = ["--bytes", &BYTES.to_string()];
        // Neither reads at first, so that they are at rest when the agent asks, with much to be read.
        let late = [&bytes[..], &["--pause-ms", "300"]].concat();
        let _listening = serve(&pods.near, &late)?;
        // The agent carries the first of the kind.
        call(&pods.client, &pods.near, &late)?;
        let before = ["joined", "redirected"].map(|event| events(node, event).unwrap());
        let many = ["--connections", &CONNECTIONS.to_string(), "--at-once", "3"];
        let many = [&late[..], &many].concat();
        let ended = call(&pods.client, &pods.near, &many)?;
        assert_eq!(ended["succeeded"], CONNECTIONS, "{limit} {ended}");
        let after = ["joined", "redirected"].map(|event| events(node, event).unwrap());
        for (before, after) in before.into_iter().zip(after) {
            assert!(after > before, "{limit} {before} {after}");
        }
        let all = [f64::from(BYTES * (CONNECTIONS + 1)); 2];
        eventually("all to be told of", DEADLINE, || told(node) == all);
        eventually("no member to be left", DEADLINE, || members(node) == 0);
    }
    Ok(())
}

#[test]
fn a_policy_ends_what_goes_past_tcp_and_another_agent_knows_it() -> Result<()> {
    let lab = Lab::builder("past").build()?;
    let pods = Trio::start(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");
    let _serving = LoadServer::start(&pods.near, 8080)?;
    let begin = || {
        let at = pods.near.at(8080).to_string();
        let load = ["round-trip", "--connections", "1", "--time-ms", "90000"];
        let load = load.into_iter().chain(["--connect", &at]);
        pods.client.spawn(program("lab-load"), load)
    };
    // The first is carried and has two members for each of its legs, the second passes.
    let mut calls = Vec::new();
    for expected in [4, 6] {
        calls.push(begin()?);
        eventually("both ends to join", DEADLINE, || members(node) == expected);
    }
    let clients = || -> BTreeSet<String> {
        let open = node.admin("/connections").unwrap();
        let open = open.as_array().unwrap().iter();
        open.map(|open| open["source_address"].to_string())
            .collect()
    };
    let before = clients();
    mesh.kill_agent("a");
    mesh.start_agent(node)?;
    // What was carried ended with the agent, and its client has connected anew.
    let left = || clients().intersection(&before).count();
    eventually("what passes to be shown", DEADLINE, || left() == 1);
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: deny, namespace: shop}\nspec: {action: DENY, rules: [{}]}\n";
    lab.manifests().write("deny.yaml", deny)?;
    eventually("no member to be left", DEADLINE, || members(node) == 0);
    assert_eq!(left(), 0);
    Ok(())
}

#[test]
fn a_pod_may_stay_out_of_it() -> Result<()> {
    let lab = Lab::builder("stay-out").build()?;
    let pods = Trio::start(&lab)?;
    let modest = PodSpec::in_namespace("shop").annotation("ambit.dev/splice", "disabled");
    let modest = lab.node("a").pod("modest", modest)?;
    let _mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");
    let _near = serve(&pods.near, &["--bytes", "1000000"])?;
    let _far = serve(&pods.far, &["--bytes", "1000000"])?;
    let before = events(node, "joined")?;
    for server in [&pods.near, &pods.near, &pods.far] {
        let ended = call(&modest, server, &["--bytes", "1000000"])?;
        assert_eq!(ended["end"], "eof", "{ended}");
    }
    // The server that it was carried to is another one's pod, and has said nothing.
    assert!(events(node, "joined")? - before <= 1.0);
    assert_eq!(members(node), 0);
    Ok(())
}

#[test]
fn resets_reach_the_other_side_after_the_last_byte() -> Result<()> {
    let lab = Lab::builder("resets").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    for server in [&pods.near, &pods.far] {
        let mut listening = serve(server, &["--bytes", "500000"])?;
        let told = call(&pods.client, server, &["--bytes", "500000", "--reset"])?;
        assert_eq!(told["succeeded"], 1, "{told}");
        let told = listening.await_json("end", DEADLINE)?;
        assert_eq!(told["end"], "reset", "{told}");
    }
    Ok(())
}

#[test]
fn blocking_sockets_are_left_alone() -> Result<()> {
    let lab = Lab::builder("blocking").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let of_self_test = [lab.node("a"), lab.node("b")].map(|node| events(node, "redirected"));
    // The second connection to the near one passes without the agent.
    for server in [&pods.far, &pods.near] {
        let listening = server.peer_server(["echo-server", "--listen", "0.0.0.0:0"])?;
        let at = server.at(listening.address().port()).to_string();
        for _ in 0..2 {
            let told = pods
                .client
                .peer(["echo-client", "--connect", &at, "--requests", "20"])?;
            assert_eq!(told["succeeded"], 1, "{told}");
        }
    }
    for node in lab.nodes() {
        assert!(events(node, "blocking")? >= 1.0, "{}", node.name());
        assert_eq!(members(node), 0, "{}", node.name());
    }
    for (node, before) in lab.nodes().iter().zip(of_self_test) {
        assert_eq!(events(node, "redirected")?, before?, "{}", node.name());
    }
    Ok(())
}

#[test]
fn where_the_self_test_fails_the_splice_is_off_and_traffic_goes_on() -> Result<()> {
    let lab = Lab::builder("unfit").build()?;
    let pods = Trio::start(&lab)?;
    let mut mesh = Mesh::default()
        .agent_arguments(&["--splice-fail-self-test"])
        .start(&lab)?;
    let before = events(lab.node("a"), "redirected")?;
    for server in [&pods.near, &pods.far] {
        let _listening = serve(server, &["--bytes", "1000000"])?;
        let told = call(&pods.client, server, &["--bytes", "1000000"])?;
        assert_eq!(told["succeeded"], 1, "{told}");
    }
    for node in lab.nodes() {
        assert_eq!(node.metric("ambit_splice_active", &[])?, 0.0);
        mesh.agent(node.name()).await_stderr(DEADLINE, |line| {
            line.contains("splice off") && line.contains("told to fail")
        })?;
    }
    assert_eq!(events(lab.node("a"), "redirected")?, before);
    Ok(())
}
