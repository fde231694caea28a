//! What applications speak, through a waypoint: nothing of it may be lost or changed.

use std::{fs, time::Duration};

use lab::{Lab, Result};

use crate::{
    stage::{Of, Stage, check},
    store::manifest,
};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn grpc_calls_go_by_their_route_with_metadata_and_status() -> Result<()> {
    let lab = Lab::builder("l7-grpc").build()?;
    let stage = Stage::open(&lab)?;
    let _servers = [
        stage.pods[0].peer_server(["grpc-server", "--listen", "0.0.0.0:8081", "--name", "one"])?,
        stage.pods[1].peer_server(["grpc-server", "--listen", "0.0.0.0:8081", "--name", "two"])?,
    ];
    let _mesh = stage.mesh(&lab, &[])?;
    let call = |arguments: &[&str]| {
        let all = [&["--url=http://front.shop"], arguments].concat();
        stage.call((Of::Both, 81), &stage.friend, "grpc-client", &all)
    };
    check("no route", &call(&[])?, &[("/status", 0.into())]);
    lab.apply(
        "route.yaml",
        &manifest(
            "GRPCRoute",
            "front",
            r#"
  parentRefs: [{group: "", kind: Service, name: front, port: 81}]
  rules:
  - matches:
    - method: {service: lab.Echo, method: Call}
      headers: [{name: x-to, value: two}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-by, value: route}]}
    backendRefs: [{name: front-two, port: 81}]
  - matches:
    - method: {service: lab.Echo}
      headers: [{name: x-to, value: one}]
    backendRefs: [{name: front-one, port: 81}]
"#,
        ),
    )?;
    lab::eventually("the route", DEADLINE, || {
        call(&[]).is_ok_and(|told| told["status"] == 12)
    });
    let two = "--metadata=x-to: two";
    for (arguments, replies, expected) in [
        // One message, many for one, and many for many.
        (
            &[two][..],
            1,
            &[("/status", 0.into()), ("/replies/0/name", "two".into())][..],
        ),
        (
            &["--metadata=x-to: one"],
            1,
            &[("/replies/0/name", "one".into())],
        ),
        (&[two, "--replies=50"], 50, &[("/status", 0.into())]),
        (
            &[two, "--messages=20", "--replies=3"],
            60,
            &[("/status", 0.into())],
        ),
        (
            &[two, "--metadata=x-trace: 7", "--metadata=x-data-bin: AAEC"],
            1,
            &[
                ("/replies/0/metadata/x-trace", "7".into()),
                ("/replies/0/metadata/x-data-bin", "AAEC".into()),
                ("/replies/0/metadata/x-by", "route".into()),
            ],
        ),
        (
            &[two, "--replies=2", "--fail=9"],
            2,
            &[("/status", 9.into()), ("/message", "as asked for".into())],
        ),
        (
            &[two, "--replies=0", "--fail=5"],
            0,
            &[("/status", 5.into())],
        ),
        (&["--metadata=x-to: nobody"], 0, &[("/status", 12.into())]),
    ] {
        let told = call(arguments)?;
        check(&format!("{arguments:?}"), &told, expected);
        assert_eq!(
            told["replies"].as_array().map(Vec::len),
            Some(replies),
            "{arguments:?}: {told}"
        );
    }
    lab.apply(
        "policy.yaml",
        &deny("front", r#"paths: ["/lab.Echo/Call"]"#),
    )?;
    lab::eventually("the policy", DEADLINE, || {
        call(&[two]).is_ok_and(|told| told["status"] == 7)
    });
    Ok(())
}

#[test]
fn websockets_echo_both_ways_and_end_as_both_agree() -> Result<()> {
    let lab = Lab::builder("l7-websocket").build()?;
    let stage = Stage::open(&lab)?;
    let [mut one, _two] = stage.serve("websocket-server", 8082, &[])?;
    let _mesh = stage.mesh(&lab, &[])?;
    let call = |path: &str, more: &[&str]| {
        let url = format!("--url=ws://front.shop{path}");
        let all = [&[url.as_str()], more].concat();
        stage.call((Of::One, 82), &stage.friend, "websocket-client", &all)
    };
    let told = call("/chat", &["--messages=20", "--bytes=100000"])?;
    check(
        "large",
        &told,
        &[("/echoed", 20.into()), ("/end", "closed".into())],
    );
    let report = &one.await_reports(1, DEADLINE)?[0];
    let client = "URI=spiffe://cluster.local/ns/shop/sa/friend";
    check(
        "server",
        report,
        &[
            ("/path", "/chat".into()),
            ("/messages", 20.into()),
            ("/end", "closed".into()),
            ("/headers/x-forwarded-client-cert/0", client.into()),
        ],
    );
    lab.apply("policy.yaml", &deny("front-one", r#"paths: ["/admin*"]"#))?;
    lab::eventually("the policy", DEADLINE, || {
        call("/admin", &[]).is_ok_and(|told| told["end"] == "HTTP 403")
    });
    check("others", &call("/chat", &[])?, &[("/end", "closed".into())]);
    Ok(())
}

#[test]
fn what_http_can_do_is_not_lost_on_the_way() -> Result<()> {
    let lab = Lab::builder("l7-http").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let http =
        |arguments: &[&str]| stage.call((Of::One, 80), &stage.friend, "http-client", arguments);
    let trailer = "/responses/0/trailers/x-trailer/0";
    for (arguments, expected) in [
        (
            &["--url=http://h/a?trailers", "--header=te: trailers"][..],
            &[(trailer, "yes".into())][..],
        ),
        (
            // As RFC 9110, 10.1.4 has it.
            &[
                "--url=http://h/a?trailers",
                "--header=te: trailers",
                "--header=connection: te",
            ],
            &[(trailer, "yes".into())],
        ),
        (
            &[
                "--url=http://h/a?trailers",
                "--http2",
                "--header=te: trailers",
            ],
            &[
                (trailer, "yes".into()),
                ("/responses/0/version", "HTTP/2.0".into()),
            ],
        ),
        (
            &["--url=http://h/a?x=1", "--method=HEAD"],
            &[
                ("/responses/0/status", 200.into()),
                ("/responses/0/body", "".into()),
            ],
        ),
        (
            &["--url=http://h/a", "--method=DELETE", "--body=7"],
            &[
                ("/responses/0/body/method", "DELETE".into()),
                ("/responses/0/body/body_bytes", 7.into()),
            ],
        ),
        (
            &["--url=http://h/a?status=204"],
            &[
                ("/responses/0/status", 204.into()),
                ("/responses/0/body", "".into()),
            ],
        ),
        (
            &["--url=http://h/a?status=418", "--http2"],
            &[("/responses/0/status", 418.into())],
        ),
        (
            &["--url=http://h/a", "--requests=50"],
            &[
                ("/responses/49/status", 200.into()),
                ("/end", None::<&str>.into()),
            ],
        ),
        (
            &["--url=http://h/a?close", "--requests=3"],
            &[
                ("/responses/2/status", 200.into()),
                ("/end", None::<&str>.into()),
            ],
        ),
        (
            &["--url=http://h/a?abort", "--http2", "--requests=2"],
            &[
                ("/responses/1/status", 503.into()),
                ("/end", None::<&str>.into()),
            ],
        ),
        (
            &[
                "--url=http://h/a",
                "--header=expect: 100-continue",
                "--body=9",
                "--method=PUT",
            ],
            &[
                ("/responses/0/informational/0", 100.into()),
                ("/responses/0/body/body_bytes", 9.into()),
            ],
        ),
    ] {
        let told = http(arguments)?;
        check(&format!("{arguments:?}"), &told, expected);
    }
    // The length of what HEAD leaves out.
    let url = format!("http://{}/", stage.at(Of::One, 80));
    let head = stage
        .friend
        .command("curl")
        .args(["-sS", "-I", &url])
        .run()?
        .success()?;
    assert!(
        head.contains("content-length: ") && !head.contains("content-length: 0"),
        "{head}"
    );
    // Trailers of a request.
    let chunked = "POST /sent HTTP/1.1\\r\\nhost: h\\r\\ntrailer: x-sum\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n";
    let send = |chunk: &str| format!("--send={chunk}");
    let chunks = [
        send(chunked),
        send("3\\r\\nabc\\r\\n"),
        send("2\\r\\nde\\r\\n0\\r\\nx-sum: 5\\r\\n\\r\\n"),
    ];
    let mut arguments: Vec<&str> = chunks.iter().map(String::as_str).collect();
    arguments.extend(["--pause-ms=50", "--timeout-ms=1000"]);
    stage.call((Of::One, 80), &stage.friend, "raw-client", &arguments)?;
    let seen = stage.seen("/sent")?;
    check(
        "trailers",
        &seen[0],
        &[("/body_bytes", 5.into()), ("/trailers/x-sum/0", "5".into())],
    );
    Ok(())
}

#[test]
fn clients_that_differ_from_most_are_served_too() -> Result<()> {
    let lab = Lab::builder("l7-odd").build()?;
    let stage = Stage::open(&lab)?;
    let answer = "HTTP/1.1 413 Too Large\\r\\ncontent-length: 2\\r\\n\\r\\nno";
    let _early = serve_raw(&stage, &["--answer", answer, "--pause-ms=500"])?;
    let _mesh = stage.mesh(&lab, &[])?;
    // HTTP/1.0 knows neither chunks nor hosts.
    let ask = "--send=GET /old?trailers HTTP/1.0\\r\\n\\r\\n";
    let told = stage.call((Of::One, 80), &stage.friend, "raw-client", &[ask])?;
    let received = told["received"].as_str().unwrap();
    assert!(
        received.starts_with("HTTP/1.0 200") && received.ends_with('}'),
        "{told}"
    );
    check("HTTP/1.0", &told, &[("/end", "eof".into())]);
    let host = stage.at(Of::One, 80);
    let host = host.strip_suffix(":80").unwrap();
    check(
        "its host",
        &stage.seen("/old")?[0],
        &[("/headers/host/0", host.into())],
    );
    // Many requests at once, more than one connection to a server takes.
    let url = format!("http://{}/many", stage.at(Of::Both, 80));
    let load = stage
        .friend
        .command("h2load")
        .args(["-n", "2000", "-c", "3", "-m", "120", &url]);
    let told = load.run()?.success()?;
    assert!(
        told.contains("2000 succeeded, 0 failed, 0 errored"),
        "{told}"
    );
    // An answer before the request is whole.
    let sent = lab.directory().join("sent");
    fs::write(&sent, vec![7; 20 << 20]).unwrap();
    let url = format!("http://{}/early", stage.at(Of::One, 82));
    let curl = stage
        .friend
        .command("curl")
        .args(["-sS", "-H", "expect:", "-w", "%{http_code}"]);
    let curl = curl
        .arg("--data-binary")
        .arg(format!("@{}", sent.display()));
    // It may say that it couldn't send all.
    let told = curl.arg(&url).run()?;
    assert!(told.text().contains("no413"), "{told:?}");
    Ok(())
}

#[test]
fn bytes_that_are_no_http_pass_where_nothing_else_is_said() -> Result<()> {
    let lab = Lab::builder("l7-bytes").build()?;
    let stage = Stage::open(&lab)?;
    let mut one = stage.pods[0].peer_server([
        "half-close-server",
        "--listen=0.0.0.0:8083",
        "--first=server",
        "--bytes=100000",
    ])?;
    let answer = "HTTP/1.1 200 OK\\r\\n\\r\\n";
    let tunnel = [
        "--answer",
        answer,
        "--answer",
        "hello through it",
        "--pause-ms=100",
    ];
    let _proxy = serve_raw(&stage, &tunnel)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let told = stage.call(
        (Of::One, 83),
        &stage.friend,
        "half-close-client",
        &["--first=server", "--bytes=100000"],
    )?;
    check("server first", &told, &[("/end", "eof".into())]);
    let report = &one.await_reports(1, DEADLINE)?[0];
    assert_eq!(report["received_sha256"], told["sent_sha256"]);
    assert_eq!(report["sent_sha256"], told["received_sha256"]);

    let connect = "--send=CONNECT inner:1 HTTP/1.1\\r\\nhost: inner:1\\r\\n\\r\\n";
    let told = stage.call(
        (Of::One, 82),
        &stage.friend,
        "raw-client",
        &[connect, "--timeout-ms=2000"],
    )?;
    let received = told["received"].as_str().unwrap();
    assert!(
        received.starts_with("HTTP/1.1 200") && received.ends_with("\r\n\r\nhello through it"),
        "{told}"
    );
    Ok(())
}

fn serve_raw(stage: &Stage, more: &[&str]) -> Result<lab::PeerServer> {
    let arguments = ["raw-server", "--listen=0.0.0.0:8082"].into_iter();
    stage.pods[0].peer_server(arguments.chain(more.iter().copied()))
}

/// A policy that denies what an operation says of a service.
pub(crate) fn deny(service: &str, operation: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: deny-{service}, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  action: DENY\n  \
         rules: [{{to: [{{operation: {{{operation}}}}}]}}]\n"
    )
}
