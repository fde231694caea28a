//! `ambit observe`: what happens to connections, told live to whoever asks.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::time::Duration;

use lab::{Child, Lab, Mesh, Node, Output, PodSpec, Result, Trio, Way, ambit_program, eventually};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a conversation, in each direction.
const TALK: u64 = 100_000;
/// Bytes of a longer one.
const LONG: u64 = 10_000_000;
/// As many as an agent lets observe at once.
const MOST: usize = 8;
const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-8081, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ['8081']}}]}]}
";

fn observers(node: &Node) -> f64 {
    node.metric("ambit_observers", &[]).unwrap()
}

/// Begins to observe, and waits until the agent has heard of it.
fn observe(node: &Node, arguments: &[&str]) -> Result<Child> {
    let before = observers(node);
    let command = node.command(ambit_program()?).arg("observe");
    let child = command.args(arguments).spawn()?;
    eventually("one more to observe", DEADLINE, || {
        observers(node) == before + 1.0
    });
    Ok(child)
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits for an event of which this is so.
fn event(observer: &mut Child, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let line = observer.await_stdout(DEADLINE, |line| wanted(&json(line)))?;
    Ok(json(&line))
}

/// Ends an observer as Ctrl-C does.
fn interrupt(mut observer: Child) -> Result<Output> {
    observer.signal(libc::SIGINT)?;
    observer.wait(DEADLINE)
}

/// All that it was told.
fn told(observer: Child) -> Result<Vec<Value>> {
    let text = interrupt(observer)?.success()?;
    Ok(text.lines().map(json).collect())
}

fn is_end(event: &Value, reporter: &str, destination: &str) -> bool {
    event["event"] == "closed"
        && event["reporter"] == reporter
        && event["destination"] == destination
}

#[test]
fn who_observes_is_told_of_every_connection_and_what_became_of_it() -> Result<()> {
    let lab = Lab::builder("observe").build()?;
    let pods = Trio::start(&lab)?;
    lab.apply("policy.yaml", POLICY)?;
    let [mut near, mut far] = pods.servers().map(|pod| pod.echo(8080).unwrap());
    let mut vault = pods.far.echo(8081)?;
    let _mesh = Mesh::default().start(&lab)?;
    let [a, b] = ["a", "b"].map(|node| lab.node(node));
    let mut held = pods.client.hold(pods.far.at(8080))?;
    held.echo().unwrap();

    let json_of = |node, filter: &[&str]| observe(node, &[&["-o", "json"], filter].concat());
    let mut all = json_of(a, &[])?;
    let mut near_only = json_of(a, &["--pod", "shop/near"])?;
    let mut denied_here = json_of(a, &["--verdict", "denied"])?;
    let mut denied_there = json_of(b, &["--verdict", "denied", "-n", "shop", "--port", "8081"])?;
    let nobody = json_of(a, &["-n", "street"])?;

    // What was there before.
    let open = event(&mut all, |event| event["event"] == "open")?;
    assert_eq!(open["destination"], "shop/far");
    assert_eq!(open["verdict"], Value::Null);
    assert_eq!(open["source_address"], held.address()?.to_string());

    // Carried, then from pod to pod in the kernel, which counts the same.
    assert_eq!(
        pods.client.talk(&mut near, pods.near.at(8080))?,
        Way::Carried
    );
    assert_eq!(
        pods.client.talk(&mut near, pods.near.at(8080))?,
        Way::Direct
    );
    for reporter in ["source", "destination"] {
        for passed in [false, true] {
            let end = event(&mut all, |event| {
                is_end(event, reporter, "shop/near") && event["passed"] == passed
            })?;
            assert_eq!(end["verdict"], "allowed", "{end}");
            assert_eq!([&end["bytes_sent"], &end["bytes_received"]], [TALK, TALK]);
            assert_eq!(end["rtt_us"].is_null(), !passed, "{end}");
        }
    }

    // So long that it goes past TCP.
    let (bytes, at) = (LONG.to_string(), pods.near.at(8080).to_string());
    let long = ["transfer-client", "--connect", &at, "--bytes", &bytes];
    assert_eq!(pods.client.peer(long)?["received_bytes"], LONG);
    let redirected = [("event", "redirected")];
    assert!(a.metric("ambit_splice_events_total", &redirected)? > 0.0);
    for reporter in ["source", "destination"] {
        let end = event(&mut all, |event| {
            is_end(event, reporter, "shop/near") && event["bytes_sent"] == LONG
        })?;
        assert_eq!(end["bytes_received"], LONG, "{end}");
        assert_eq!(end["passed"], true, "{end}");
    }

    // To another node.
    pods.client.talk(&mut far, pods.far.at(8080))?;
    let end = event(&mut all, |event| is_end(event, "source", "shop/far"))?;
    let identity = "spiffe://cluster.local/ns/shop/sa/default";
    for (key, value) in [
        ("source", "shop/client".to_owned()),
        ("source_identity", identity.to_owned()),
        ("destination_identity", identity.to_owned()),
        ("destination_address", pods.far.at(8080).to_string()),
        ("tunnel", format!("{}:15008", b.address())),
        ("verdict", "allowed".to_owned()),
        ("flags", "-".to_owned()),
    ] {
        assert_eq!(end[key], value, "{key}: {end}");
    }
    assert_eq!([&end["bytes_sent"], &end["bytes_received"]], [TALK, TALK]);
    assert!(end["rtt_us"].as_u64() > Some(0), "{end}");
    assert!(end["retransmits"].is_u64(), "{end}");

    // Denied: the server's agent knows by which policy, the client's that it was.
    assert_eq!(
        pods.client.talk(&mut vault, pods.far.at(8081))?,
        Way::reset()
    );
    let denied = event(&mut denied_there, |_| true)?;
    assert_eq!(denied["policy"], "shop/no-8081");
    let reason = denied["reason"].as_str().unwrap();
    assert!(reason.starts_with("denied by AuthorizationPolicy shop/no-8081"));
    let denied = event(&mut denied_here, |_| true)?;
    assert_eq!(
        [&denied["reporter"], &denied["event"]],
        ["source", "closed"]
    );
    assert_eq!(denied["destination"], "shop/far");

    // Of what a filter leaves out nothing is told.
    event(&mut near_only, |event| {
        event["passed"] == true && event["event"] == "closed"
    })?;
    for event in told(near_only)? {
        assert_eq!(event["destination"], "shop/near");
    }
    for observer in [denied_here, denied_there] {
        let told = told(observer)?;
        assert_eq!(told.len(), 1, "{told:?}");
    }
    assert_eq!(told(nobody)?, Vec::<Value>::new());

    // Each connection is opened once and ends once, at each end.
    drop(held);
    event(&mut all, |event| {
        is_end(event, "source", "shop/far") && event["connection"] == open["connection"]
    })?;
    let told = told(all)?;
    let count = |event: &str| told.iter().filter(|it| it["event"] == event).count();
    assert_eq!([count("open"), count("opened"), count("closed")], [1, 8, 9]);
    Ok(())
}

#[test]
fn an_observer_ends_in_order_and_leaves_its_place_to_another() -> Result<()> {
    let lab = Lab::builder("observers").build()?;
    lab.namespace("shop").enrolled()?;
    let pod = |name| lab.node("a").pod(name, PodSpec::in_namespace("shop"));
    let (client, server) = (pod("client")?, pod("server")?);
    let _echo = server.echo(8080)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");

    // A reader that has seen enough.
    let program = ambit_program()?;
    let script = format!(
        "{} observe | head -n 2; echo ${{PIPESTATUS[0]}}",
        program.display()
    );
    let reader = node.command("bash").args(["-c", &script]).spawn()?;
    eventually("an observer", DEADLINE, || observers(node) == 1.0);
    // It has said all that is wanted, and nothing else happens.
    assert_eq!(client.call(server.at(8080))?, "echoed");
    eventually("it to be gone", DEADLINE, || observers(node) == 0.0);
    let output = reader.wait(DEADLINE)?;
    assert_eq!(output.stderr, "");
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    let [headers, row, "0"] = lines[..] else {
        panic!("{lines:?}");
    };
    let column = |header| headers.find(header).unwrap();
    for (header, value) in [
        ("EVENT", "opened "),
        ("VERDICT", "- "),
        ("DIRECTION", "outbound "),
        ("SOURCE", "shop/client "),
        ("DESTINATION", "shop/server "),
        ("TO ", &format!("{} ", server.at(8080))),
        ("IDENTITIES", "cluster.local/ns/shop/sa/default->"),
        ("TO-CLIENT", "0B "),
    ] {
        assert!(row[column(header)..].starts_with(value), "{header}: {text}");
    }

    let mut all = Vec::new();
    for _ in 0..MOST {
        all.push(observe(node, &[])?);
    }
    let refused = node.run(&program, ["observe"])?;
    assert_eq!(refused.status.code(), Some(1));
    let cure = "8 observe already, which is the limit: end one";
    assert!(refused.stderr.contains(cure), "{}", refused.stderr);
    // Nothing happens that it could be told of.
    let output = interrupt(all.pop().unwrap())?;
    assert!(output.succeeded(), "{output:?}");
    eventually("a free place", DEADLINE, || {
        observers(node) == (MOST - 1) as f64
    });
    all.push(observe(node, &[])?);
    assert_eq!(node.metric("ambit_observers_refused_total", &[])?, 1.0);

    let unknown = node.run("curl", ["-s", "http://127.0.0.1:15000/observe?node=a"])?;
    let said = "there is no parameter \"node\"; there are: namespace, pod, port, verdict\n";
    assert_eq!(unknown.text(), said);

    // With the agent they end, and say so.
    mesh.stop_agent("a")?;
    for observer in all {
        let output = observer.wait(DEADLINE)?;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains("observe again"), "{output:?}");
    }
    Ok(())
}
