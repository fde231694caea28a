//! What applications see of a connection through the mesh: what they would see without it.
//!
//! Each story is told twice: with a server on the client's node, where one agent carries the
//! connection, and with one on another node, where two agents and a tunnel do.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it didn't expect has failed"
)]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use lab::{Lab, Mesh, Pod, Result, RunningMesh, Trio, peer_program, process_status};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a server mode of `lab-peer` and a client mode against it; what each reports.
fn exchange(client: &Pod, server: &Pod, serve: &[&str], call: &[&str]) -> Result<[Value; 2]> {
    let mut listening = server.peer_server(serve.iter().chain(&["--listen", "0.0.0.0:0"]))?;
    let at = server.at(listening.address().port()).to_string();
    let command = client
        .command(peer_program()?)
        .args(call)
        .args(["--connect", &at]);
    let told = command
        .args(["--timeout-ms", "60000"])
        .deadline(DEADLINE * 4)
        .run()?
        .json()?;
    let report = listening.await_reports(1, DEADLINE)?.remove(0);
    Ok([report, told])
}

#[test]
fn two_hundred_mib_each_way_at_once_arrive_whole() -> Result<()> {
    let lab = Lab::builder("bulk").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    let bytes = (200_u64 << 20).to_string();
    for server in pods.servers() {
        let serve = ["transfer-server", "--bytes", &bytes];
        let call = ["transfer-client", "--bytes", &bytes];
        let [served, called] = exchange(&pods.client, server, &serve, &call)?;
        for (sent, received) in [(&served, &called), (&called, &served)] {
            let (name, told) = (server.name(), (sent, received));
            assert_eq!(sent["sent_bytes"], 200 << 20, "{name}: {told:?}");
            assert_eq!(
                sent["sent_sha256"], received["received_sha256"],
                "{name}: {told:?}"
            );
            assert_eq!(received["end"], "eof", "{name}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn five_hundred_connections_are_open_at_once() -> Result<()> {
    let lab = Lab::builder("many").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        let call = [
            "echo-client",
            "--connections",
            "500",
            "--requests",
            "3",
            "--bytes",
            "2000",
        ];
        let [_, told] = exchange(&pods.client, server, &["echo-server"], &call)?;
        assert_eq!(told["succeeded"], 500, "{}: {told}", server.name());
    }
    Ok(())
}

#[test]
fn half_closes_and_resets_reach_the_other_side_as_what_they_are() -> Result<()> {
    let lab = Lab::builder("ends").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    // Server's and client's arguments, and the ends that they report.
    let table: [(&[&str], &[&str], [&str; 2]); 4] = [
        (
            &["half-close-server", "--bytes", "300000"],
            &["half-close-client", "--bytes", "300000"],
            ["eof", "eof"],
        ),
        (
            &[
                "half-close-server",
                "--bytes",
                "300000",
                "--first",
                "server",
            ],
            &[
                "half-close-client",
                "--bytes",
                "300000",
                "--first",
                "server",
            ],
            ["eof", "eof"],
        ),
        (
            &["echo-server"],
            &["reset-client", "--after", "100000"],
            ["reset", "reset by this side"],
        ),
        (
            &["reset-server", "--after", "100000"],
            &["observe-client", "--bytes", "100000"],
            ["reset by this side", "reset"],
        ),
    ];
    for server in pods.servers() {
        for (serve, call, ends) in table {
            let [served, called] = exchange(&pods.client, server, serve, call)?;
            let story = format!("{} {serve:?}: {served} {called}", server.name());
            assert_eq!([&served["end"], &called["end"]], ends, "{story}");
            if called["sent_sha256"].is_string() {
                assert_eq!(called["sent_bytes"], 300_000, "{story}");
                assert_eq!(called["sent_sha256"], served["received_sha256"], "{story}");
                assert_eq!(called["received_sha256"], served["sent_sha256"], "{story}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_port_where_nobody_listens_resets_the_client_and_the_log_says_why() -> Result<()> {
    let lab = Lab::builder("refused").build()?;
    let pods = Trio::start(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        let at = server.at(9).to_string();
        let told = pods.client.peer(["observe-client", "--connect", &at])?;
        assert_eq!(told["end"], "reset", "{}: {told}", server.name());
        let agent = mesh.agent(server.node().name());
        agent.await_stderr(DEADLINE, |line| {
            line.contains(&format!("connecting to {at}")) && line.contains("refused")
        })?;
    }
    // Of the other node's refusal the client's own agent knows as much as it was told.
    mesh.agent("a").await_stderr(DEADLINE, |line| {
        line.contains("could not reach the workload (503)") && line.contains("outbound")
    })?;
    Ok(())
}

#[test]
fn a_server_may_speak_first() -> Result<()> {
    let lab = Lab::builder("banner").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        let at = server.at(25).to_string();
        let [client, served] = &connect(&pods.client, &listen(server, 25)?, &at)?;
        for (mut speaker, mut listener, text) in [
            (served, client, "220 ready\r\n"),
            (client, served, "QUIT\r\n"),
            (served, client, "221 bye\r\n"),
        ] {
            speaker.write_all(text.as_bytes()).unwrap();
            let mut heard = vec![0; text.len()];
            listener.read_exact(&mut heard).unwrap();
            assert_eq!(heard, text.as_bytes(), "{}", server.name());
        }
    }
    Ok(())
}

/// What an idle connection may cost an agent, in bytes. What an agent without optimisation holds of
/// one is 8 to 12 KiB, by the heap's pages; with a buffer in one direction alone it would be 16 KiB
/// more.
const IDLE_BOUND: u64 = 20 * 1024;

#[test]
fn idle_connections_stay_open_and_cost_little() -> Result<()> {
    const IDLE: u64 = 400;
    let lab = Lab::builder("idle").build()?;
    let pods = Trio::start(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        let listener = listen(server, 80)?;
        let at = server.at(80).to_string();
        // What the first connections cost once: the heaps of threads. Few at a time, so that what
        // each costs by itself isn't in the heap already.
        let warm = [
            "echo-client",
            "--connections",
            "10",
            "--requests",
            "40",
            "--bytes",
            "4000",
        ];
        exchange(&pods.client, server, &["echo-server"], &warm)?;

        let before = resident(&mut mesh);
        let mut open = Vec::new();
        for _ in 0..IDLE {
            open.push(connect(&pods.client, &listener, &at)?);
        }
        // All of them have been used, and are idle now.
        for pair in &mut open {
            echo(pair, "hello");
        }
        let after = resident(&mut mesh);
        for (node, (before, after)) in ["a", "b"].iter().zip(before.iter().zip(after)) {
            let each = after.saturating_sub(*before) / IDLE;
            eprintln!(
                "{} agent {node}: {before} to {after}: {each} bytes each",
                server.name()
            );
            assert!(
                each < IDLE_BOUND,
                "{} agent {node}: {each} bytes each",
                server.name()
            );
        }

        // Others come and go meanwhile.
        let others = ["echo-client", "--connections", "100", "--requests", "20"];
        exchange(&pods.client, server, &["echo-server"], &others)?;
        for pair in &mut open {
            echo(pair, "still there");
        }
    }
    Ok(())
}

#[test]
fn a_reader_that_stops_stops_its_sender_alone_and_memory_stays_bounded() -> Result<()> {
    const MIB: u64 = 1 << 20;
    const STOPPED: u64 = 12;
    // A stream's window of 4 MiB for those of the receiving agent, and on each side a buffer of
    // 256 KiB, 512 KiB that wait for the tunnel's socket, and what is left over of the heap.
    let bound = STOPPED * (4 * MIB + 2 * 768 * 1024) + 16 * MIB;

    let lab = Lab::builder("stopped").build()?;
    let pods = Trio::start(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        let listener = listen(server, 80)?;
        let at = server.at(80).to_string();
        let before = resident(&mut mesh);
        let mut open = Vec::new();
        for _ in 0..STOPPED {
            open.push(connect(&pods.client, &listener, &at)?);
        }
        let sent: Vec<u64> = std::thread::scope(|scope| {
            let senders: Vec<_> = open
                .iter()
                .map(|[client, _]| scope.spawn(|| send_until_stalled(client)))
                .collect();
            senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .collect()
        });
        let after = resident(&mut mesh);
        eprintln!(
            "{}: sent {sent:?}, resident {before:?} {after:?}",
            server.name()
        );
        for (node, (before, after)) in ["a", "b"].iter().zip(before.iter().zip(after)) {
            let grown = after.saturating_sub(*before);
            assert!(
                grown < bound,
                "agent {node}: {grown} bytes of {bound}; sent {sent:?}"
            );
        }

        // The others of the same two pods go on.
        let others = [
            "echo-client",
            "--connections",
            "5",
            "--requests",
            "40",
            "--bytes",
            "100000",
        ];
        let [_, told] = exchange(&pods.client, server, &["echo-server"], &others)?;
        assert_eq!(told["succeeded"], 5, "{}: {told}", server.name());

        // Readers that go on get every byte.
        std::thread::scope(|scope| {
            for ([client, served], sent) in open.into_iter().zip(sent) {
                drop(client);
                scope.spawn(move || {
                    let received = std::io::copy(&mut &served, &mut std::io::sink()).unwrap();
                    assert_eq!(received, sent);
                });
            }
        });
    }
    Ok(())
}

/// Writes until nothing is taken any more; how much was.
fn send_until_stalled(mut client: &TcpStream) -> u64 {
    const MOST: u64 = 256 << 20;
    let chunk = vec![b's'; 64 * 1024];
    client
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut sent = 0;
    while sent < MOST {
        match client.write(&chunk) {
            Ok(written) => sent += written as u64,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                return sent;
            }
        }
    }
    panic!("{sent} bytes were taken from a sender whose reader doesn't read");
}

/// The resident memory of the agents of nodes a and b, in bytes.
fn resident(mesh: &mut RunningMesh<'_>) -> [u64; 2] {
    ["a", "b"].map(|node| process_status(mesh.agent(node).pid(), "VmRSS").unwrap() * 1024)
}

fn listen(server: &Pod, port: u16) -> Result<TcpListener> {
    Ok(server
        .in_namespace(|| TcpListener::bind(server.at(port)))?
        .unwrap())
}

/// A connection from the client to a listener: both ends.
fn connect(client: &Pod, listener: &TcpListener, at: &str) -> Result<[TcpStream; 2]> {
    let connecting = client.in_namespace(|| TcpStream::connect(at))?.unwrap();
    let (served, _) = listener.accept().unwrap();
    for end in [&connecting, &served] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    Ok([connecting, served])
}

fn echo([client, served]: &mut [TcpStream; 2], text: &str) {
    let mut heard = vec![0; text.len()];
    client.write_all(text.as_bytes()).unwrap();
    served.read_exact(&mut heard).unwrap();
    served.write_all(&heard).unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text.as_bytes());
}

#[test]
fn a_client_may_use_its_port_again_at_once() -> Result<()> {
    let lab = Lab::builder("reopened").build()?;
    let pods = Trio::start(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    for server in pods.servers() {
        // It has nothing to say, so it ends first, and its side of the mesh keeps the connection's
        // addresses in TIME_WAIT.
        let serve = ["transfer-server", "--bytes", "0", "--listen", "0.0.0.0:0"];
        let listening = server.peer_server(serve)?;
        let at = server.at(listening.address().port()).to_string();
        for _ in 0..3 {
            let call = [
                "transfer-client",
                "--bytes",
                "1000000",
                "--source",
                "0.0.0.0:45000",
            ];
            let to = ["--connect", &at, "--timeout-ms", "10000"];
            let told = pods.client.peer(call.into_iter().chain(to))?;
            assert_eq!(told["connected"], true, "{told}");
        }
    }
    Ok(())
}
