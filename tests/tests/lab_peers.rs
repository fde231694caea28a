//! What `lab-peer` reports where there is no mesh: the behaviour that a mesh has to keep.

use std::time::Duration;

use lab::{Lab, PodSpec, Result};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

#[test]
fn peers_report_resets_half_closes_hashes_and_idle_ends() -> Result<()> {
    let lab = Lab::builder("peers").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    // Server's and client's arguments, and what each reports.
    let million = "1000000";
    let table: [(&[&str], &[&str], [&str; 2]); 5] = [
        (
            &["reset-server"],
            &["observe-client"],
            ["reset by this side", "reset"],
        ),
        (
            &["echo-server"],
            &["reset-client"],
            ["reset", "reset by this side"],
        ),
        (
            &["half-close-server"],
            &["half-close-client"],
            ["eof", "eof"],
        ),
        (
            &["half-close-server", "--first", "server"],
            &["half-close-client", "--first", "server"],
            ["eof", "eof"],
        ),
        (
            &["transfer-server", "--bytes", million],
            &["transfer-client", "--bytes", million],
            ["eof", "eof"],
        ),
    ];
    for (port, (serve, call, ends)) in (7000..).zip(table) {
        let listen = format!("0.0.0.0:{port}");
        let mut peer = server.peer_server(serve.iter().chain(&["--listen", &listen]))?;
        let at = server.at(port).to_string();
        let told = client.peer(call.iter().chain(&["--connect", &at]))?;
        let reports = peer.await_reports(1, DEADLINE)?;
        assert_eq!(
            [&reports[0]["end"], &told["end"]],
            ends,
            "{serve:?} {reports:?} {told}"
        );
        if told["sent_sha256"].is_string() {
            assert_eq!(told["sent_sha256"], reports[0]["received_sha256"]);
            assert_eq!(told["received_sha256"], reports[0]["sent_sha256"]);
            assert_ne!(
                told["sent_sha256"], told["received_sha256"],
                "two directions"
            );
        }
    }

    let echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let at = server.at(8080).to_string();
    let mut idle = client.spawn_peer(["idle-client", "--connections", "50", "--connect", &at])?;
    assert_eq!(idle.await_json("open", DEADLINE)?["open"], 50);
    drop(echo);
    let ends = idle.await_json("ends", DEADLINE)?;
    assert_eq!(ends["ends"].as_array().unwrap().len(), 50);
    let told = client.peer(["observe-client", "--connect", &at])?;
    assert_eq!(
        (&told["connected"], &told["end"]),
        (&false.into(), &"refused".into())
    );
    Ok(())
}

#[test]
fn a_slow_reader_gets_every_byte() -> Result<()> {
    let lab = Lab::builder("slow").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let mut sink =
        server.peer_server(["sink-server", "--listen", "0.0.0.0:80", "--pause-ms", "500"])?;
    let at = server.at(80).to_string();
    let told = client.peer(["transfer-client", "--connect", &at, "--bytes", "30000000"])?;
    let report = &sink.await_reports(1, DEADLINE)?[0];
    assert_eq!(report["received_bytes"], 30_000_000);
    assert_eq!(report["received_sha256"], told["sent_sha256"]);
    Ok(())
}

#[test]
fn peers_speak_protocols_and_tell_what_they_saw() -> Result<()> {
    let lab = Lab::builder("protocols").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let start = |mode: &str, port: u16, more: &[&str]| {
        let listen = format!("0.0.0.0:{port}");
        let arguments = [mode, "--listen", &listen].into_iter();
        server.peer_server(arguments.chain(more.iter().copied()))
    };
    let head = "HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok";
    let early = "HTTP/1.1 103 Early Hints\\r\\n\\r\\n";
    let mut http = start("http-server", 7000, &["--name", "one"])?;
    let mut chat = start("websocket-server", 7001, &[])?;
    let mut grpc = start("grpc-server", 7002, &["--name", "one"])?;
    let _raw = start("raw-server", 7003, &["--answer", early, "--answer", head])?;

    // Of each: mode, port, arguments, and what the client tells, by JSON pointer.
    type Told<'a> = &'a [(&'a str, Value)];
    let url = |query: &str| format!("--url=http://front.shop/a{query}");
    let table: [(&str, u16, Vec<String>, Told<'_>); 10] = [
        (
            "http-client",
            7000,
            vec![
                url("?x=1&trailers"),
                "--header=te: trailers".into(),
                "--body=3".into(),
            ],
            &[
                ("/responses/0/status", 200.into()),
                ("/responses/0/version", "HTTP/1.1".into()),
                ("/responses/0/trailers/x-trailer/0", "yes".into()),
                ("/responses/0/body/name", "one".into()),
                ("/responses/0/body/path", "/a".into()),
                ("/responses/0/body/query", "x=1&trailers".into()),
                ("/responses/0/body/headers/host/0", "front.shop".into()),
                ("/responses/0/body/body_bytes", 3.into()),
            ],
        ),
        (
            "http-client",
            7000,
            vec![
                url("?fail-first=1&key=k&trailers"),
                "--http2".into(),
                "--requests=2".into(),
            ],
            &[
                ("/responses/0/status", 503.into()),
                ("/responses/1/status", 200.into()),
                ("/responses/1/body/version", "HTTP/2.0".into()),
                ("/responses/1/body/authority", "front.shop".into()),
                ("/responses/1/trailers/x-trailer/0", "yes".into()),
            ],
        ),
        (
            "http-client",
            7000,
            vec![url("?close&status=404&delay=10ms"), "--requests=2".into()],
            &[
                ("/responses/0/status", 404.into()),
                ("/responses/0/headers/connection/0", "close".into()),
                ("/responses/1", Value::Null),
            ],
        ),
        (
            "http-client",
            7000,
            vec![url("?abort")],
            &[("/responses/0", Value::Null)],
        ),
        (
            "http-client",
            7009,
            vec![url("")],
            &[("/end", "refused".into()), ("/responses/0", Value::Null)],
        ),
        (
            "http-client",
            7003,
            vec![url("")],
            &[
                ("/responses/0/informational/0", 103.into()),
                ("/responses/0/body", "ok".into()),
            ],
        ),
        (
            "websocket-client",
            7001,
            vec!["--url=ws://front.shop/chat".into(), "--messages=3".into()],
            &[("/echoed", 3.into()), ("/end", "closed".into())],
        ),
        (
            "grpc-client",
            7002,
            vec![
                "--url=http://front.shop".into(),
                "--messages=2".into(),
                "--replies=2".into(),
            ],
            &[("/status", 0.into()), ("/replies/3/name", "one".into())],
        ),
        (
            "grpc-client",
            7002,
            vec![
                "--url=http://front.shop".into(),
                "--fail=14".into(),
                "--metadata=x-a: 1".into(),
            ],
            &[
                ("/status", 14.into()),
                ("/message", "as asked for".into()),
                ("/replies/0/metadata/x-a", "1".into()),
            ],
        ),
        (
            "raw-client",
            7000,
            vec![
                "--send=GET / HTTP/1.1\\r\\n".into(),
                "--send=\\x00: a\\r\\n\\r\\n".into(),
            ],
            &[("/end", "eof".into())],
        ),
    ];
    for (mode, port, arguments, expected) in table {
        let at = server.at(port).to_string();
        let head = [mode, "--connect", &at].map(str::to_owned);
        let told = client.peer(head.iter().chain(&arguments))?;
        for (pointer, value) in expected {
            let said = told.pointer(pointer).unwrap_or(&Value::Null);
            assert_eq!(said, value, "{mode} {arguments:?}: {pointer} of {told}");
        }
    }
    for (server, reports) in [(&mut http, 5), (&mut chat, 1), (&mut grpc, 2)] {
        server.await_reports(reports, DEADLINE)?;
    }
    Ok(())
}
