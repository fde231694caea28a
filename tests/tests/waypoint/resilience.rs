//! What TrafficPolicies and routes do about slow, failing and busy servers.

use lab::{Lab, Result, eventually};
use serde_json::Value;

use crate::{
    shop::{DEADLINE, metrics, sample},
    stage::{Of, Stage, check},
    store::manifest,
};

/// A TrafficPolicy of the shop.
pub(crate) fn traffic_policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ambit.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:{spec}"
    )
}

/// One for service `front`.
fn of_front(spec: &str) -> String {
    let target = "\n  targetRefs: [{group: \"\", kind: Service, name: front}]\n  ";
    traffic_policy("front", &format!("{target}{spec}\n"))
}

#[test]
fn routes_retry_and_give_up_and_policies_limit_and_fail_requests() -> Result<()> {
    let lab = Lab::builder("l7-limits").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    lab.apply(
        "route.yaml",
        &manifest(
            "HTTPRoute",
            "front",
            r#"
  parentRefs: [{group: "", kind: Service, name: front}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /late}}]
    timeouts: {request: 400ms}
    backendRefs: [{name: front-one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /again}}]
    retry: {codes: [503], attempts: 2, backoff: 10ms}
    backendRefs: [{name: front-one, port: 80}]
  - name: limited
    matches: [{path: {type: PathPrefix, value: /limited}}]
    backendRefs: [{name: front-one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: front-two, port: 80}]
"#,
        ),
    )?;
    lab.apply(
        "limit.yaml",
        &traffic_policy(
            "limited",
            r#"
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: front, sectionName: limited}]
  rateLimit: {requests: 3, per: 1h}
"#,
        ),
    )?;
    let header = "headers: [{name: x-fault, value: abort}]";
    lab.apply(
        "fault.yaml",
        &of_front(&format!("fault: {{abort: {{status: 418, {header}}}}}")),
    )?;
    let abort = "--header=x-fault: abort";
    eventually("the fault", DEADLINE, || {
        stage
            .ask("/", &[abort])
            .is_ok_and(|answer| answer["status"] == 418)
    });
    stage.eventually("the route", "/", |answer| answer["body"]["name"] == "two");
    for (path, status, asked) in [
        ("/late?delay=20ms", 200, 1),
        ("/late/x?delay=5s", 504, 1),
        // As often as it takes, and no more often than it may.
        ("/again?fail-first=2&key=a", 200, 3),
        ("/again/x?fail-first=5&key=b", 503, 3),
        ("/again/y?status=500", 500, 1),
        ("/other?fail-first=1&key=c", 503, 1),
    ] {
        let answer = stage.ask(path, &[])?;
        let seen = stage.seen(path.split('?').next().unwrap())?;
        let seen = seen
            .iter()
            .filter(|it| path.starts_with(&format!("{}?", it["path"].as_str().unwrap())));
        assert_eq!(
            (&answer["status"], seen.count()),
            (&status.into(), asked),
            "{path}: {answer}"
        );
    }
    let statuses: Vec<Value> = (0..5)
        .map(|_| stage.ask("/limited", &[]))
        .collect::<Result<_>>()?;
    let codes: Vec<_> = statuses
        .iter()
        .map(|it| it["status"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [200, 200, 200, 429, 429]);
    let after = statuses[4]["headers"]["retry-after"][0].as_str().unwrap();
    assert!(after.parse::<u64>().unwrap() > 60, "{after}");
    check(
        "others",
        &stage.ask("/free", &[])?,
        &[("/status", 200.into())],
    );
    for (flag, count) in [("RL", 2.0), ("UT", 1.0)] {
        let labels = [("response_flags", flag)];
        assert!(
            sample(&metrics(&lab, "b"), "istio_requests_total", &labels) >= count,
            "{flag}"
        );
    }
    Ok(())
}

#[test]
fn an_endpoint_that_fails_is_left_out() -> Result<()> {
    let lab = Lab::builder("l7-ejected").build()?;
    let mut stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    lab.apply(
        "policy.yaml",
        &of_front(
            "loadBalancing: {type: RoundRobin}\n  \
             outlierEjection: {consecutiveErrors: 3, baseEjection: 5m}",
        ),
    )?;
    lab.apply(
        "marker.yaml",
        &traffic_policy(
            "marker",
            r#"
  targetRefs: [{group: "", kind: Service, name: front-one}]
  fault: {abort: {status: 418}}
"#,
        ),
    )?;
    // Applied after the other.
    let url = "--url=http://h/";
    eventually("the policies", DEADLINE, || {
        let told = stage.call((Of::One, 80), &stage.friend, "http-client", &[url]);
        told.is_ok_and(|told| told["responses"][0]["status"] == 418)
    });
    stage.servers[0].child().signal(9)?;
    let answer = "HTTP/1.1 500 Broken\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n";
    let mut broken = None;
    eventually("the broken server to listen", DEADLINE, || {
        let arguments = ["raw-server", "--listen=0.0.0.0:8080", "--answer", answer];
        broken = stage.pods[0].peer_server(arguments).ok();
        broken.is_some()
    });
    let answers = (0..40).map(|_| stage.ask("/", &["--method=POST"]));
    let statuses: Vec<_> = answers
        .map(|answer| Ok(answer?["status"].clone()))
        .collect::<Result<_>>()?;
    let failed = statuses.iter().filter(|status| **status == 500).count();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!(failed == 3 && passed >= 36, "{statuses:?}");
    assert!(
        statuses[20..].iter().all(|status| *status == 200),
        "{statuses:?}"
    );
    let page = metrics(&lab, "b");
    assert!(
        sample(&page, "ambit_waypoint_ejections_total", &[]) >= 1.0,
        "{page}"
    );
    let (name, front) = (
        "ambit_waypoint_ejected_endpoints",
        ("service", "shop/front"),
    );
    assert_eq!(sample(&page, name, &[front]), 1.0, "{page}");
    assert_eq!(
        sample(&page, name, &[]),
        1.0,
        "no other has a policy: {page}"
    );
    Ok(())
}

#[test]
fn a_request_beyond_the_circuit_breakers_limit_is_refused_at_once() -> Result<()> {
    let lab = Lab::builder("l7-breaker").build()?;
    let stage = Stage::open(&lab)?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let breaker = "circuitBreaker: {maxRequests: 1}\n  \
                   fault: {abort: {status: 418, headers: [{name: x-fault, value: abort}]}}";
    lab.apply("policy.yaml", &of_front(breaker))?;
    eventually("the policy", DEADLINE, || {
        let answer = stage.ask("/", &["--header=x-fault: abort"]);
        answer.is_ok_and(|answer| answer["status"] == 418)
    });
    let at = stage.at(Of::Both, 80);
    let url = "--url=http://front/long?delay=3s";
    let long = stage
        .friend
        .spawn_peer(["http-client", "--connect", &at, url])?;
    eventually("it to be under way", DEADLINE, || {
        stage.seen("/long").unwrap().len() == 1
    });
    let refused = stage.ask("/refused", &[])?;
    check(
        "refused",
        &refused,
        &[
            ("/status", 503.into()),
            ("/body", "upstream overloaded".into()),
        ],
    );
    assert!(stage.seen("/refused")?.is_empty());
    let long = long.wait(DEADLINE)?.json()?;
    check("long", &long, &[("/responses/0/status", 200.into())]);
    check(
        "after it",
        &stage.ask("/", &[])?,
        &[("/status", 200.into())],
    );
    let flags = [("response_flags", "UO"), ("response_code", "503")];
    assert_eq!(
        sample(&metrics(&lab, "b"), "istio_requests_total", &flags),
        1.0
    );
    assert!(mesh.agent("b").stderr().contains("flags=UO"));
    Ok(())
}

#[test]
fn a_mirror_gets_copies_that_are_whole_or_none() -> Result<()> {
    let lab = Lab::builder("l7-mirror").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    lab.apply(
        "route.yaml",
        &manifest(
            "HTTPRoute",
            "front",
            r#"
  parentRefs: [{group: "", kind: Service, name: front}]
  rules:
  - filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: front-two, port: 80}}
    backendRefs: [{name: front-one, port: 80}]
"#,
        ),
    )?;
    let copies = |path: &str| -> Vec<Value> {
        let mut all = stage.seen(path).unwrap();
        all.retain(|it| it["name"] == "two");
        all
    };
    eventually("a copy", DEADLINE, || {
        stage.ask("/first", &[]).unwrap();
        !copies("/first").is_empty()
    });
    let answer = stage.ask("/body", &["--method=POST", "--body=70000"])?;
    check(
        "answer",
        &answer,
        &[
            ("/body/name", "one".into()),
            ("/body/body_bytes", 70_000.into()),
        ],
    );
    eventually("its copy", DEADLINE, || copies("/body").len() == 1);
    check(
        "copy",
        &copies("/body")[0],
        &[("/body_bytes", 70_000.into()), ("/method", "POST".into())],
    );
    // The client goes away within it.
    let cut = "--send=POST /cut HTTP/1.1\\r\\nhost: h\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n5\\r\\nhello\\r\\n";
    let arguments = [cut, "--pause-ms=300", "--timeout-ms=100"];
    stage.call((Of::Both, 80), &stage.friend, "raw-client", &arguments)?;
    stage.ask("/last", &[])?;
    eventually("the last copy", DEADLINE, || copies("/last").len() == 1);
    let cut = stage.seen("/cut")?;
    assert!(
        cut.is_empty(),
        "a body that was cut off passes for whole: {cut:?}"
    );
    Ok(())
}

#[test]
fn a_client_with_a_cookie_keeps_its_server() -> Result<()> {
    let lab = Lab::builder("l7-cookie").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let cookie = "consistentHash: {cookie: {name: lab, ttl: 1h, path: /}}";
    let policy = format!("loadBalancing: {{type: ConsistentHash, {cookie}}}");
    lab.apply("policy.yaml", &of_front(&policy))?;
    stage.eventually("a cookie", "/", |answer| {
        answer["headers"]["set-cookie"].is_array()
    });
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let first = stage.ask("/", &[])?;
        let set = first["headers"]["set-cookie"][0].as_str().unwrap();
        assert!(
            set.starts_with("lab=") && set.contains("Path=/") && set.contains("Max-Age=3600"),
            "{set}"
        );
        names.insert(first["body"]["name"].to_string());
        let cookie = format!("--header=cookie: a=b; {}", set.split(';').next().unwrap());
        let url = "--url=http://front/";
        let told = stage.call(
            (Of::Both, 80),
            &stage.friend,
            "http-client",
            &[url, &cookie, "--requests=8"],
        )?;
        for answer in told["responses"].as_array().unwrap() {
            assert_eq!(answer["body"]["name"], first["body"]["name"], "{answer}");
            assert_eq!(answer["headers"]["set-cookie"], Value::Null, "it has one");
        }
    }
    assert_eq!(names.len(), 2, "clients differ: {names:?}");
    Ok(())
}
