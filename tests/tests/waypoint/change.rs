//! Routes, policies and waypoints that change under load.

use std::{thread, time::Duration};

use lab::{Generator, Lab, Load, Result, eventually, run_load};
use serde_json::Value;

use crate::{
    lifecycle::started,
    shop::DEADLINE,
    stage::{Of, Stage, check},
    store::manifest,
};

const LOAD: Load = Load::FixedRate {
    requests_per_second: 100,
    connections: 6,
};

#[test]
fn no_request_fails_while_routes_and_policies_change() -> Result<()> {
    let lab = Lab::builder("l7-change").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let target = stage.at(Of::Both, 80).parse().unwrap();
    let loaded = thread::scope(|scope| {
        let load = scope.spawn(|| {
            run_load(
                &stage.friend,
                Generator::Own,
                target,
                &LOAD,
                Duration::from_secs(15),
            )
        });
        for round in 0..12 {
            let name = ["one", "two"][round % 2];
            lab.apply("route.yaml", &route(name)).unwrap();
            stage.eventually("the route", "/", |answer| answer["body"]["name"] == name);
        }
        lab.apply("policy.yaml", POLICY).unwrap();
        eventually("the policy", DEADLINE, || {
            stage
                .ask_as(&stage.stranger, "/", &[])
                .is_ok_and(|answer| answer["status"] == 403)
        });
        lab.remove("route.yaml").unwrap();
        lab.remove("policy.yaml").unwrap();
        eventually("no policy", DEADLINE, || {
            stage
                .ask_as(&stage.stranger, "/", &[])
                .is_ok_and(|answer| answer["status"] == 200)
        });
        assert!(!load.is_finished(), "all of it was under load");
        load.join().unwrap()
    })?;
    assert_eq!(loaded.errors, 0, "{:?}", loaded.first_error);
    assert!(loaded.all_requests > 500, "{loaded:?}");
    Ok(())
}

#[test]
fn a_waypoint_that_is_stopped_answers_what_is_under_way_and_tells_its_clients_to_go() -> Result<()>
{
    let lab = Lab::builder("l7-drain").build()?;
    let stage = Stage::open(&lab)?;
    let mut mesh = stage.mesh(&lab, &["--drain", "15s"])?;
    let at = stage.at(Of::Both, 80);
    let mut clients = Vec::new();
    for more in [
        &["--url=http://front/http1?delay=3s"][..],
        &["--url=http://front/http2?delay=3s", "--http2"],
    ] {
        let arguments = ["http-client", "--requests=2", "--connect", &at].into_iter();
        clients.push(
            stage
                .friend
                .spawn_peer(arguments.chain(more.iter().copied()))?,
        );
    }
    let url = format!("http://{at}/frames?delay=3s");
    let frames = stage.friend.command("nghttp").args(["-v", &url]).spawn()?;
    eventually("the servers to be asked", DEADLINE, || {
        ["/http1", "/http2", "/frames"]
            .iter()
            .all(|path| stage.seen(path).unwrap().len() == 1)
    });
    let pid = started(&mut mesh, "b");
    lab.node("b").run("kill", ["-TERM", &pid])?.success()?;
    let told: Vec<Value> = clients
        .into_iter()
        .map(|it| it.wait(DEADLINE)?.json())
        .collect::<Result<_>>()?;
    for told in &told {
        check("under way", told, &[("/responses/0/status", 200.into())]);
        assert_eq!(
            told["responses"].as_array().map(Vec::len),
            Some(1),
            "no second one: {told}"
        );
    }
    check(
        "http1",
        &told[0],
        &[("/responses/0/headers/connection/0", "close".into())],
    );
    let frames = frames.wait(DEADLINE)?.success()?;
    assert!(
        frames.contains("GOAWAY") && frames.contains(":status: 200"),
        "{frames}"
    );
    // Another takes over.
    stage.eventually("requests to be answered again", "/", |answer| {
        answer["status"] == 200
    });
    Ok(())
}

fn route(version: &str) -> String {
    let spec = format!(
        "\n  parentRefs: [{{group: \"\", kind: Service, name: front}}]\n  \
         rules: [{{backendRefs: [{{name: front-{version}, port: 80}}]}}]\n"
    );
    manifest("HTTPRoute", "front", &spec)
}

const POLICY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: front, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: front}]
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/stranger]}}]}]
"#;
