//! Requests that two servers would read differently: none reaches a server in more than one way.

use std::time::Duration;

use lab::{Lab, PeerServer, Result};
use serde_json::Value;

use crate::stage::{Of, Stage};

const DEADLINE: Duration = Duration::from_secs(20);

/// What becomes of some bytes.
#[derive(Debug)]
enum Fate {
    /// Answered so, and no server sees any of it.
    Refused(u16),
    /// No server sees a whole request.
    Lost,
    /// A server sees just these: path, and how long the body is.
    Seen(&'static [(&'static str, u64)]),
}

use Fate::{Lost, Refused, Seen};

/// Bytes of a client, each end of a line as `|`, and their fate.
const REQUESTS: [(&str, Fate); 43] = [
    // What is well-formed, to see that the others are refused for what is wrong with them.
    (
        "POST /a HTTP/1.1|host: h|content-length: 5||hello",
        Seen(&[("/a", 5)]),
    ),
    (
        "GET /a HTTP/1.1|host: h||GET /b HTTP/1.1|host: h||",
        Seen(&[("/a", 0), ("/b", 0)]),
    ),
    ("OPTIONS * HTTP/1.1|host: h||", Seen(&[("*", 0)])),
    ("GET /a HTTP/1.0||GET /b HTTP/1.0||", Seen(&[("/a", 0)])),
    ("GET /a#/b HTTP/1.1|host: h||", Seen(&[("/a", 0)])),
    // Lengths.
    (
        "POST /a HTTP/1.1|host: h|content-length: 5|content-length: 6||hello!",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: 5, 6||hello!",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: +5||hello",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: -5||hello",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: 0x5||hello",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: ||hello",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length : 5||hello",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|connection: content-length|content-length: 5||hello",
        Seen(&[("/a", 5)]),
    ),
    // A length and chunks: these count, and nothing more is read.
    (
        "POST /a HTTP/1.1|host: h|content-length: 3|transfer-encoding: chunked||5|hello|0||",
        Seen(&[("/a", 5)]),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked|content-length: 3||5|hello|0||",
        Seen(&[("/a", 5)]),
    ),
    (
        "POST /a HTTP/1.1|host: h|content-length: 44|transfer-encoding: chunked||0||GET /hidden HTTP/1.1|host: h||",
        Seen(&[("/a", 0)]),
    ),
    // Encodings.
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: xchunked||0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked, identity||0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: identity||0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked|transfer-encoding: identity||0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.0|host: h|transfer-encoding: chunked||5|hello|0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding : chunked||0||",
        Refused(400),
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding:\\x0bchunked||0||",
        Refused(400),
    ),
    // Chunks.
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked||zz|hello|0||",
        Lost,
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked||fffffffffffffffff5|hello|0||",
        Lost,
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked||-5|hello|0||",
        Lost,
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked||5|helloXX0||",
        Lost,
    ),
    (
        "POST /a HTTP/1.1|host: h|transfer-encoding: chunked||5;a\\nb|hello|0||",
        Lost,
    ),
    // Lines.
    ("GET /a HTTP/1.1|host: h|x-a: b| c: d||", Refused(400)),
    ("GET /a HTTP/1.1|host: h|x-a: b\\rx-c: d||", Refused(400)),
    ("GET /a HTTP/1.1|host: h|x-a: b\\0c||", Refused(400)),
    (
        "GET /a HTTP/1.1\\nhost: h\\n\\nGET /b HTTP/1.1\\nhost: h\\n\\n",
        Seen(&[("/a", 0), ("/b", 0)]),
    ),
    ("GET /a\\x0bb HTTP/1.1|host: h||", Refused(400)),
    ("GET /a HTTP/1.1 GET /b HTTP/1.1|host: h||", Refused(400)),
    // Whom it is for.
    ("GET /a HTTP/1.1|host: h|host: i||", Refused(400)),
    ("GET /a HTTP/1.1||", Refused(400)),
    ("GET http://i/a HTTP/1.1|host: h||", Refused(400)),
    ("GET http://h/a HTTP/1.1|host: h||", Seen(&[("/a", 0)])),
    (
        "GET /a HTTP/1.1|host: h|connection: host||",
        Seen(&[("/a", 0)]),
    ),
    ("GET /a HTTP/1.1|host: h i||", Refused(400)),
    // A request in the body of another.
    (
        "GET /a HTTP/1.1|host: h|content-length: 24||GET /hidden HTTP/1.1||",
        Seen(&[("/a", 24)]),
    ),
    // An upgrade that the server doesn't grant, or must not be asked for.
    (
        "GET /a HTTP/1.1|host: h|connection: upgrade|upgrade: websocket||GET /a%2fb HTTP/1.1|host: h||",
        Seen(&[("/a", 0)]),
    ),
    (
        "GET /a HTTP/1.1|host: h|connection: upgrade, http2-settings|upgrade: h2c|http2-settings: AAMAAABkAAQAAP__||",
        Seen(&[("/a", 0)]),
    ),
];

#[test]
fn no_bytes_reach_a_server_as_other_requests_than_were_decided_upon() -> Result<()> {
    let lab = Lab::builder("smuggling").build()?;
    let mut stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let mut wrong = Vec::new();
    for (bytes, fate) in &REQUESTS {
        let before = seen_by(&mut stage)?.len();
        let send = format!("--send={}", lines(bytes));
        let arguments = [send.as_str(), "--timeout-ms=400"];
        let told = stage.call((Of::One, 80), &stage.friend, "raw-client", &arguments)?;
        let received = told["received"].as_str().unwrap_or_default();
        let seen = seen_by(&mut stage)?.split_off(before);
        let seen: Vec<_> = seen
            .iter()
            .map(|it| {
                (
                    it["path"].as_str().unwrap(),
                    it["body_bytes"].as_u64().unwrap(),
                )
            })
            .collect();
        let is_as_told = match fate {
            Refused(status) => {
                received.starts_with(&format!("HTTP/1.1 {status} ")) && seen.is_empty()
            }
            Lost => seen.is_empty(),
            Seen(expected) => seen == *expected,
        };
        if !is_as_told {
            wrong.push(format!("{bytes}\n  not {fate:?}: {seen:?} {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// All requests so far. One more is made, and waited for: what came before it was seen before.
fn seen_by(stage: &mut Stage) -> Result<Vec<Value>> {
    let asked = stage.servers[0].reports()?.len() + 1;
    stage.pods[0].peer([
        "http-client",
        "--url=http://h/mark",
        "--connect",
        &stage.pods[0].at(8080).to_string(),
    ])?;
    let mut all = stage.servers[0].await_reports(asked, DEADLINE)?;
    all.retain(|it| it["path"] != "/mark");
    Ok(all)
}

#[test]
fn no_answer_of_a_server_reaches_a_client_as_two() -> Result<()> {
    let lab = Lab::builder("l7-answers").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let hidden = "HTTP/1.1 200 OK|content-length: 6||hidden";
    // Of each: what the server says, `|` as above, and what the client's first line has, and how its answer ends.
    for (answer, status, end) in [
        (
            "HTTP/1.1 200 OK|content-length: 2||ok".to_owned(),
            "200",
            "ok",
        ),
        (
            format!("HTTP/1.1 200 OK|content-length: 2||ok{hidden}"),
            "200",
            "ok",
        ),
        (
            format!(
                "HTTP/1.1 200 OK|content-length: 2|transfer-encoding: chunked||5|whole|0||{hidden}"
            ),
            "200",
            "5\r\nwhole\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK|content-length: 2|content-length: 4||okay".to_owned(),
            "503",
            "answered",
        ),
        (
            "HTTP/1.1 200 OK|x-a: b| c: d|content-length: 2||ok".to_owned(),
            "503",
            "answered",
        ),
        (
            format!("HTTP/1.1 204 No Content||{hidden}"),
            "204",
            "\r\n\r\n",
        ),
        // To the end of the connection, and less than was said.
        (
            "HTTP/1.0 200 OK||to the end".to_owned(),
            "200",
            "to the end\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK|content-length: 10||short".to_owned(),
            "200",
            "short",
        ),
        // Nobody has asked for it.
        (
            format!("HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: x||{hidden}"),
            "503",
            "answered",
        ),
        (
            "HTTP/1.1 103 Early Hints||HTTP/1.1 200 OK|content-length: 2||ok".to_owned(),
            "200",
            "ok",
        ),
        ("nonsense||".to_owned(), "503", "answered"),
    ] {
        let server = server(&stage, &answer)?;
        let ask = format!("--send={}", lines("GET /a HTTP/1.1|host: h||"));
        let arguments = [ask.as_str(), "--timeout-ms=700"];
        let told = stage.call((Of::One, 82), &stage.friend, "raw-client", &arguments)?;
        drop(server);
        let received = told["received"].as_str().unwrap_or_default();
        let is_right =
            received.starts_with(&format!("HTTP/1.1 {status} ")) && received.ends_with(end);
        assert!(
            is_right && received.matches("HTTP/1.1").count() == 1,
            "{answer}: {told}"
        );
    }
    Ok(())
}

fn server(stage: &Stage, answer: &str) -> Result<PeerServer> {
    stage.pods[0].peer_server([
        "raw-server",
        "--listen=0.0.0.0:8082",
        "--answer",
        &lines(answer),
    ])
}

/// As `lab-peer` takes it.
fn lines(text: &str) -> String {
    text.replace('|', "\\r\\n")
}
