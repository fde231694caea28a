//! What counts towards the limits of a TrafficPolicy for longer than a request takes.

use lab::{Child, IdleConnections, Lab, Result, RunningMesh, eventually, process_status};

use crate::{
    lifecycle::started,
    resilience::traffic_policy,
    shop::{DEADLINE, metrics, sample},
    stage::{Of, Stage, check},
};

#[test]
fn an_upgraded_connection_has_its_places_until_it_ends() -> Result<()> {
    let lab = Lab::builder("l7-held").build()?;
    let stage = Stage::open(&lab)?;
    let _servers = stage.serve("websocket-server", 8082, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    await_rest(&stage, &mut mesh)?;
    let chat = ["--url=ws://front-one/chat", "--timeout-ms=60000"];
    for (limit, status) in [("maxConnections", 418), ("maxRequests", 419)] {
        limit_of(&stage, &lab, Of::One, limit, status)?;
        let at = stage.at(Of::One, 82);
        let more = ["--messages=1000", "--pause-ms=50", "--report-first"];
        let arguments = ["websocket-client", "--connect", &at].into_iter();
        let mut held = stage.friend.spawn_peer(arguments.chain(chat).chain(more))?;
        held.await_json("first", DEADLINE)?;
        let another = || stage.call((Of::One, 82), &stage.friend, "websocket-client", &chat);
        check(limit, &another()?, &[("/end", "HTTP 503".into())]);
        let labels = [("service", "shop/front-one"), ("limit", limit)];
        let name = "ambit_waypoint_overflow_total";
        assert!(sample(&metrics(&lab, "b"), name, &labels) >= 1.0, "{limit}");
        assert!(held.is_running());
        held.kill();
        eventually("its place to be free", DEADLINE, || {
            another().is_ok_and(|told| told["end"] == "closed")
        });
    }
    Ok(())
}

#[test]
fn those_who_wait_for_a_connection_that_they_will_share_are_pending() -> Result<()> {
    let lab = Lab::builder("l7-pending").build()?;
    let stage = Stage::open(&lab)?;
    let _servers = stage.serve("grpc-server", 8081, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    limit_of(&stage, &lab, Of::Two, "maxPendingRequests", 418)?;
    // The waypoint gets no connection to a server of this node, and isn't refused one.
    let agent = mesh.agent("b").pid().to_string();
    let signal = |name: &str| lab.node("b").run("kill", [name, &agent])?.success();
    signal("-STOP")?;
    let at = stage.at(Of::Two, 81);
    let call = || {
        let url = "--url=http://front-two";
        stage
            .friend
            .spawn_peer(["grpc-client", "--connect", &at, url])
    };
    let mut calls: Vec<Child> = (0..3).map(|_| call()).collect::<Result<_>>()?;
    // All but one of the three, whichever came first.
    eventually("two calls to be refused", DEADLINE, || {
        let ended = calls.iter_mut().filter(|call| !call.stdout().is_empty());
        ended.count() == 2
    });
    signal("-CONT")?;
    let mut statuses = Vec::new();
    for call in calls {
        let told = call.wait(DEADLINE)?.json()?;
        statuses.push((
            told["status"].as_i64(),
            told["message"].as_str().map(str::to_owned),
        ));
    }
    statuses.sort();
    let refused = (Some(14), Some("upstream overloaded".to_owned()));
    assert_eq!(
        statuses,
        [(Some(0), Some(String::new())), refused.clone(), refused]
    );
    Ok(())
}

/// Waits until the waypoint has given back the pages of its program that nobody needs, while clients keep their
/// connections.
fn await_rest(stage: &Stage, mesh: &mut RunningMesh<'_>) -> Result<()> {
    /// In KiB: what is worth giving back, and what a look comes by. A debug build has several times as many.
    const FEW: u64 = 6 * 1024;

    let server = stage.at(Of::One, 80).parse().unwrap();
    let _held = IdleConnections::open(&stage.friend, server, 3)?;
    let waypoint = started(mesh, "b").parse().unwrap();
    eventually("the waypoint to give its pages back", DEADLINE, || {
        process_status(waypoint, "RssFile").unwrap() < FEW
    });
    Ok(())
}

/// Sets a limit of a service to 1, and waits until it holds, for which requests with a header are answered so.
fn limit_of(stage: &Stage, lab: &Lab, of: Of, limit: &str, status: u16) -> Result<()> {
    let name = match of {
        Of::Both => "front",
        Of::One => "front-one",
        Of::Two => "front-two",
    };
    let spec = format!(
        "\n  targetRefs: [{{group: \"\", kind: Service, name: {name}}}]\n  \
         circuitBreaker: {{{limit}: 1}}\n  \
         fault: {{abort: {{status: {status}, headers: [{{name: x-fault, value: abort}}]}}}}\n"
    );
    lab.apply("limit.yaml", &traffic_policy("limit", &spec))?;
    let ask = ["--url=http://h/", "--header=x-fault: abort"];
    eventually("the limit", DEADLINE, || {
        let told = stage.call((of, 80), &stage.friend, "http-client", &ask);
        told.is_ok_and(|told| told["responses"][0]["status"] == status)
    });
    Ok(())
}
