//! Requests with a body that are sent again: every server has all of the body, or knows that it hasn't.

use lab::{Lab, PeerServer, Result};
use sha2::{Digest as _, Sha256};

use crate::{
    shop::DEADLINE,
    stage::{Of, Stage},
    store::manifest,
};

/// Less than a waypoint keeps of a body, and far more.
const LENGTHS: [usize; 2] = [20_000, 2 << 20];
/// Of each length. Each is as likely as not to meet the server that fails first.
const REQUESTS: usize = 8;

#[test]
fn a_body_that_is_sent_again_is_whole_at_every_server_or_the_client_is_told() -> Result<()> {
    let lab = Lab::builder("l7-repeated").build()?;
    let stage = Stage::open(&lab)?;
    let [one, two] = &stage.pods;
    // One cuts the connection off in the middle of a request, the other answers before it has read it.
    let cutting = one.peer_server(["reset-server", "--listen=0.0.0.0:8082", "--after=5000"])?;
    let answer = "HTTP/1.1 503 Busy\\r\\ncontent-length: 0\\r\\n\\r\\n";
    let refusing = one.peer_server(["raw-server", "--listen=0.0.0.0:8083", "--answer", answer])?;
    let reading = [
        two.peer_server(["http-server", "--listen=0.0.0.0:8082"])?,
        two.peer_server(["http-server", "--listen=0.0.0.0:8083"])?,
    ];
    lab.apply("routes.yaml", &[route(82), route(83)].join("---\n"))?;
    let _mesh = stage.mesh(&lab, &[])?;
    for (port, mut failing, reading) in [(82, cutting, &reading[0]), (83, refusing, &reading[1])] {
        for is_http2 in [false, true] {
            for length in LENGTHS {
                send(&stage, (port, is_http2, length), reading)?;
            }
        }
        // Else nothing was sent twice.
        failing.await_reports(1, DEADLINE)?;
    }
    Ok(())
}

/// Sends bodies of a length, and looks at what the client is told and the server has read.
fn send(
    stage: &Stage,
    (port, is_http2, length): (u16, bool, usize),
    reading: &PeerServer,
) -> Result<()> {
    for number in 0..REQUESTS {
        let path = format!("/{port}-{is_http2}-{length}-{number}");
        let sent = [
            format!("--url=http://front{path}"),
            format!("--body={length}"),
        ];
        let mut arguments = vec!["--method=POST", &sent[0], &sent[1]];
        arguments.extend(is_http2.then_some("--http2"));
        let told = stage.call((Of::Both, port), &stage.friend, "http-client", &arguments)?;
        let seen = reading.reports()?;
        let seen: Vec<_> = seen.iter().filter(|it| it["path"] == *path).collect();
        match told["responses"][0]["status"].as_u64() {
            Some(200) => assert_eq!(seen.len(), 1, "{path}: {seen:?}"),
            Some(503) if length > LENGTHS[0] => assert!(seen.is_empty(), "{path}: {seen:?}"),
            _ => panic!("{path}: {told}"),
        }
        for seen in seen {
            assert_eq!(seen["body_sha256"], sha256(length), "{path}: {seen}");
        }
    }
    Ok(())
}

/// Has requests to a port of `front` sent again, also those that do harm when they are made twice.
fn route(port: u16) -> String {
    let spec = format!(
        "\n  parentRefs: [{{group: \"\", kind: Service, name: front, port: {port}}}]\n  \
         rules: [{{retry: {{codes: [503], attempts: 2, backoff: 10ms}}, \
         backendRefs: [{{name: front, port: {port}}}]}}]\n"
    );
    manifest("HTTPRoute", &format!("front-{port}"), &spec)
}

/// Of what `http-client` sends.
fn sha256(length: usize) -> String {
    let body: Vec<u8> = (0..=250).cycle().take(length).collect();
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
