//! Connections that are kept for a next request, which may never come.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use lab::{Lab, Result, eventually, process_status};

use crate::{
    lifecycle::started,
    shop::DEADLINE,
    stage::{Of, Stage},
};

/// So long after a request a waypoint holds no buffer for its connection.
const MOMENT: Duration = Duration::from_secs(1);
const CONNECTIONS: u64 = 400;
/// What an idle one may cost the waypoint, in bytes. Without optimisation it is 7 to 8 KiB, and with hyper's buffers
/// 16 more.
const BOUND: u64 = 14 * 1024;

#[test]
fn an_idle_connection_costs_little_and_is_as_good_as_before() -> Result<()> {
    let lab = Lab::builder("l7-idle").build()?;
    let stage = Stage::open(&lab)?;
    let _servers = stage.serve("websocket-server", 8082, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let pid = started(&mut mesh, "b");
    let memory = || process_status(pid.parse().unwrap(), "RssAnon").unwrap() * 1024;
    let connect = |port| {
        let at = stage.at(Of::Two, port);
        let connected = stage.friend.in_namespace(|| TcpStream::connect(at))?;
        Ok::<_, lab::Error>(Kept::new(connected.unwrap()))
    };

    // The server speaks nothing else, so this is an error that leaves the connection as it is.
    let mut chat = connect(82)?;
    assert!(chat.ask("/", "").starts_with("HTTP/1.1 5"));
    let mut busy = connect(80)?;
    let mut pass_a_moment = || {
        let begin = Instant::now();
        while begin.elapsed() < 2 * MOMENT {
            assert!(busy.ask("/busy", "").starts_with("HTTP/1.1 200"));
        }
    };
    // What the first cost once.
    let mut open: Vec<_> = (0..20).map(|_| connect(80)).collect::<Result<_>>()?;
    for kept in &mut open {
        assert!(kept.ask("/", "").starts_with("HTTP/1.1 200"));
    }

    let before = memory();
    for _ in 0..CONNECTIONS {
        let mut kept = connect(80)?;
        assert!(kept.ask("/", "").starts_with("HTTP/1.1 200"));
        open.push(kept);
    }
    let each = || memory().saturating_sub(before) / CONNECTIONS;
    eventually("buffers to be given back", DEADLINE, || each() < BOUND);
    eprintln!("{} bytes each", each());

    // Requests on them, whole and in two pieces.
    pass_a_moment();
    for (index, kept) in open.iter_mut().enumerate() {
        let path = format!("/again/{index}");
        assert!(kept.ask(&path, "").starts_with("HTTP/1.1 200"), "{index}");
    }
    for kept in &mut open {
        kept.send("GET /piece");
    }
    pass_a_moment();
    for kept in &mut open {
        assert!(kept.finish("meal", "").starts_with("HTTP/1.1 200"));
    }
    assert_eq!(stage.seen("/again/")?.len(), open.len());
    assert_eq!(stage.seen("/piecemeal")?.len(), open.len());

    let asked = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = chat.ask("/chat", asked);
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    // A text of two bytes, and its echo.
    chat.0.write_all(b"\x81\x82\0\0\0\0hi").unwrap();
    let mut echo = [0; 4];
    chat.0.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x02hi");
    Ok(())
}

/// A connection to a service.
struct Kept(TcpStream);

impl Kept {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Asks for a path, and gives the answer's head.
    fn ask(&mut self, path: &str, headers: &str) -> String {
        self.send("GET ");
        self.finish(path, headers)
    }

    /// The rest of a request that was sent up to its path, or within that.
    fn finish(&mut self, path: &str, headers: &str) -> String {
        self.send(&format!("{path} HTTP/1.1\r\nhost: h\r\n{headers}\r\n"));
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let lines = head.lines().map(str::to_ascii_lowercase);
        let lengths =
            lines.filter_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let length = lengths.sum();
        self.0.read_exact(&mut vec![0; length]).unwrap();
        head
    }
}
