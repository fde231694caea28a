//! Policies that change while requests are under way: what they deny ends, and what they allow goes on.

use std::fs;

use lab::{Child, Lab, Pod, Result, RunningMesh, eventually};

use crate::{
    shop::{DEADLINE, metrics, sample},
    stage::{Of, Stage, check},
};

/// Messages of a client, one each 50 ms: for longer than it takes to see another end.
const LONG: &[&str] = &["--messages=300", "--pause-ms=50", "--report-first"];

#[test]
fn a_websocket_that_a_changed_policy_denies_is_reset_and_others_go_on() -> Result<()> {
    let lab = Lab::builder("l7-revoke-websocket").build()?;
    let stage = Stage::open(&lab)?;
    let [mut one, _two] = stage.serve("websocket-server", 8082, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let chat = |url: &str| {
        open(
            &stage,
            &stage.friend,
            "websocket-client",
            (Of::One, 82),
            url,
        )
    };
    let mut denied = chat("ws://front.shop/admin")?;
    let mut allowed = chat("ws://front.shop/chat")?;
    lab.apply(
        "policy.yaml",
        &deny(r#"to: [{operation: {paths: ["/admin*"]}}]"#),
    )?;
    let told = denied.await_json("end", DEADLINE)?;
    assert!(told["end"].as_str().unwrap().contains("reset"), "{told}");
    let report = &one.await_reports(1, DEADLINE)?[0];
    check("its server", report, &[("/path", "/admin".into())]);
    assert_ne!(report["end"], "closed", "{report}");
    assert!(allowed.is_running());
    check_told(&lab, &mut mesh, &["status=101", "path=\"/admin\""])?;

    check(
        "the other",
        &allowed.await_json("end", DEADLINE * 2)?,
        &[("/end", "closed".into()), ("/echoed", 300.into())],
    );
    // It is told when it has ended.
    mesh.await_access("b", &["status=101", "path=\"/chat\"", "flags=-"])?;
    Ok(())
}

#[test]
fn a_grpc_stream_that_a_changed_policy_denies_is_reset_and_others_go_on() -> Result<()> {
    let lab = Lab::builder("l7-revoke-grpc").build()?;
    let stage = Stage::open(&lab)?;
    let _servers = stage.serve("grpc-server", 8081, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let call = |client: &Pod| {
        open(
            &stage,
            client,
            "grpc-client",
            (Of::One, 81),
            "http://front.shop",
        )
    };
    let mut denied = call(&stage.stranger)?;
    let mut allowed = call(&stage.friend)?;
    let stranger = r#"from: [{source: {principals: [cluster.local/ns/shop/sa/stranger]}}]"#;
    // Of the server's pod: the one before was of the service.
    let policy = deny(stranger).replace(TARGET, "selector: {matchLabels: {app: one}}");
    lab.apply("policy.yaml", &policy)?;
    let told = denied.await_json("status", DEADLINE)?;
    assert_ne!(told["status"], 0, "{told}");
    assert!(allowed.is_running());
    check_told(&lab, &mut mesh, &["status=200", "protocol=\"HTTP/2"])?;
    let told = allowed.await_json("status", DEADLINE * 2)?;
    check("the other", &told, &[("/status", 0.into())]);
    assert_eq!(told["replies"].as_array().map(Vec::len), Some(300));
    Ok(())
}

#[test]
fn downloads_uploads_and_answers_to_come_end_when_a_changed_policy_denies_them() -> Result<()> {
    let lab = Lab::builder("l7-revoke-bodies").build()?;
    let stage = Stage::open(&lab)?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let sent = lab.directory().join("sent");
    fs::write(&sent, vec![7; 40 << 20]).unwrap();
    let upload = format!("@{}", sent.display());
    let start = |name: &str, path: &str, tenant: &str, more: &[&str]| -> Result<Child> {
        let url = format!("http://{}/{name}?{path}", stage.at(Of::One, 80));
        let curl = stage.friend.command("curl").args(["-sS", "-f", "-H"]);
        let curl = curl
            .arg(format!("x-tenant: {tenant}"))
            .args(["-H", "expect:"]);
        let curl = curl.args(["--limit-rate", "2M", "-o"]);
        curl.arg(lab.directory().join(name))
            .args(more)
            .arg(url)
            .spawn()
    };
    let (http1, http2) = ("--http1.1", "--http2-prior-knowledge");
    let download = "body=40000000";
    let body = ["--data-binary", &upload];
    let denied = [
        // What curl says: a transfer that was cut off, a stream that was reset, an error of HTTP.
        (
            start("down1", download, "bad", &[http1])?,
            &[18, 56][..],
            "200",
        ),
        (start("down2", download, "bad", &[http2])?, &[92], "200"),
        (
            start("up1", "echo", "bad", &[&body[..], &[http1]].concat())?,
            &[18, 55, 56],
            "200",
        ),
        (
            start("up2", "echo", "bad", &[&body[..], &[http2]].concat())?,
            &[92],
            "200",
        ),
        (start("late", "delay=60s", "bad", &[http1])?, &[22], "403"),
    ];
    let allowed = start("other", download, "good", &[http1])?;
    eventually("all to be under way", DEADLINE, || {
        let has_begun =
            |name| fs::metadata(lab.directory().join(name)).is_ok_and(|it| it.len() > 0);
        ["down1", "down2", "up1", "up2", "other"]
            .into_iter()
            .all(has_begun)
            && stage.seen("/late").unwrap().len() == 1
    });
    let policy = "when: [{key: \"request.headers[x-tenant]\", values: [bad]}]";
    lab.apply("policy.yaml", &deny(policy))?;
    for (child, codes, status) in denied {
        let ended = child.wait(DEADLINE)?;
        let code = ended.status.code().unwrap();
        assert!(codes.contains(&code), "{code}: {ended:?}");
        check_told(&lab, &mut mesh, &[&format!("status={status}")])?;
    }
    allowed.wait(DEADLINE * 2)?.success()?;
    Ok(())
}

/// Starts a client that talks for long, and waits until it has had its first answer.
fn open(
    stage: &Stage,
    client: &Pod,
    mode: &str,
    (of, port): (Of, u16),
    url: &str,
) -> Result<Child> {
    let at = stage.at(of, port);
    let url = format!("--url={url}");
    let arguments = [mode, "--connect", &at, &url, "--timeout-ms=60000"].into_iter();
    let mut child = client.spawn_peer(arguments.chain(LONG.iter().copied()))?;
    child.await_json("first", DEADLINE)?;
    Ok(child)
}

/// Checks that a denial is in the access log, and in the metrics.
fn check_told(lab: &Lab, mesh: &mut RunningMesh<'_>, line: &[&str]) -> Result<()> {
    let denial = ["flags=UAEX", "denied by AuthorizationPolicy shop/deny"];
    mesh.await_access("b", &[&denial, line].concat())?;
    let name = "ambit_policy_denials_total";
    assert!(sample(&metrics(lab, "b"), name, &[("policy", "shop/deny")]) >= 1.0);
    Ok(())
}

const TARGET: &str = "targetRefs: [{group: \"\", kind: Service, name: front-one}]";

/// A policy of service `front-one` that denies what a rule says.
fn deny(rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: deny, namespace: shop}}\nspec:\n  {TARGET}\n  action: DENY\n  \
         rules: [{{{rule}}}]\n"
    )
}
