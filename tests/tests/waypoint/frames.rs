//! HTTP/2 as no library writes it: what isn't a request of HTTP/1.1 reaches no server.

use lab::{Lab, Result};

use crate::stage::{Of, Stage, check};

/// Fields and body of a request.
type Asked<'a> = (&'a [(&'a str, &'a str)], &'a str);

const GET: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const HTTP: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/a");
const HOST: (&str, &str) = (":authority", "h");
const SMUGGLED: &str = "/a HTTP/1.1\r\nhost: h\r\n\r\nGET /hidden";

#[test]
fn malformed_requests_of_http2_reach_no_server() -> Result<()> {
    let lab = Lab::builder("l7-frames").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    // Those that are well-formed, so that it isn't the frames that are refused.
    let good: [Asked<'_>; 4] = [
        (&[GET, HTTP, PATH, HOST], ""),
        (&[POST, HTTP, PATH, HOST, ("content-length", "5")], "hello"),
        (&[POST, HTTP, PATH, HOST], "GET /hidden HTTP/1.1\r\n\r\n"),
        (
            &[GET, HTTP, PATH, HOST, ("host", "h"), ("te", "trailers")],
            "",
        ),
    ];
    let bad: [Asked<'_>; 22] = [
        (&[POST, HTTP, PATH, HOST, ("content-length", "3")], "hello"),
        (
            &[POST, HTTP, PATH, HOST, ("content-length", "0")],
            "GET /hidden HTTP/1.1\r\n\r\n",
        ),
        (&[POST, HTTP, PATH, HOST, ("content-length", "9")], "hello"),
        (&[POST, HTTP, PATH, HOST, ("content-length", "+5")], "hello"),
        (
            &[POST, HTTP, PATH, HOST, ("transfer-encoding", "chunked")],
            "0\r\n\r\n",
        ),
        (&[GET, HTTP, PATH, HOST, ("connection", "keep-alive")], ""),
        (&[GET, HTTP, PATH, HOST, ("upgrade", "h2c")], ""),
        (&[GET, HTTP, PATH, HOST, ("x-a", "b\r\nx-c: d")], ""),
        (&[GET, HTTP, PATH, HOST, ("x-a", "b\nx-c: d")], ""),
        (&[GET, HTTP, PATH, HOST, ("x-a", "b\0c")], ""),
        (&[GET, HTTP, PATH, HOST, ("x-a: b\r\nx-c", "d")], ""),
        (&[GET, HTTP, PATH, HOST, ("x a", "b")], ""),
        (&[GET, HTTP, PATH, HOST, ("X-A", "b")], ""),
        (&[GET, HTTP, PATH, HOST, ("host", "i")], ""),
        (&[GET, HTTP, (":path", SMUGGLED), HOST], ""),
        (&[GET, HTTP, (":path", "/a b"), HOST], ""),
        (&[GET, HTTP, (":path", "/a%2fb"), HOST], ""),
        (&[GET, HTTP, PATH, PATH, HOST], ""),
        (&[GET, HTTP, PATH, (":authority", "h/b")], ""),
        (&[GET, HTTP, PATH, (":authority", "u@h")], ""),
        (
            &[
                (":method", "GET /hidden HTTP/1.1\r\nhost: h\r\n\r\nGET"),
                HTTP,
                PATH,
                HOST,
            ],
            "",
        ),
        (&[GET, HTTP, HOST, ("x-a", "b"), PATH], ""),
    ];
    for (index, asked) in good.iter().enumerate() {
        send(&stage, asked)?;
        let seen = stage.seen("/")?;
        let seen: Vec<_> = seen.iter().filter(|it| it["path"] == "/a").collect();
        assert_eq!(seen.len(), index + 1, "{asked:?}: {seen:?}");
        check(
            &format!("{asked:?}"),
            seen[index],
            &[("/body_bytes", asked.1.len().into())],
        );
    }
    let before = stage.seen("/a")?.len();
    for asked in &bad {
        send(&stage, asked)?;
        let seen = stage.seen("")?;
        let asked_for = |it: &&serde_json::Value| it["path"] != "/";
        let seen: Vec<_> = seen.iter().filter(asked_for).skip(before).collect();
        assert!(seen.is_empty(), "{asked:?}: {seen:?}");
    }
    Ok(())
}

/// On a connection of its own, until nothing more comes.
fn send(stage: &Stage, (fields, body): &Asked<'_>) -> Result<()> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(0x4, 0, 0, &[]));
    // Literal fields without indexing (RFC 7541, 6.2.2), of lengths below 127.
    let mut block = Vec::new();
    for (name, value) in *fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    let end_stream = u8::from(body.is_empty());
    bytes.extend(frame(0x1, 0x4 | end_stream, 1, &block));
    if !body.is_empty() {
        bytes.extend(frame(0x0, 1, 1, body.as_bytes()));
    }
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let send = format!("--send={escaped}");
    let arguments = [send.as_str(), "--timeout-ms=400"];
    stage.call((Of::One, 80), &stage.friend, "raw-client", &arguments)?;
    Ok(())
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
