//! HTTP/2 as few use it: streams that become connections, servers that speak first, and those that send their clients
//! away.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use h2::{
    RecvStream,
    client::SendRequest,
    ext::Protocol,
    server::{self, SendResponse},
};
use http::{Method, Request, Response, StatusCode};
use lab::{Lab, Pod, Result, eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    beside::{beside, block_on},
    frames::frame,
    protocols::deny,
    shop::DEADLINE,
    stage::{Of, Stage},
};

/// Bytes that a client's connection begins with, and frames and flags (RFC 9113, 3.4 and 6).
const PREFACE: usize = 24;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A server that says its SETTINGS at once, and does what CONNECT asks it for.
#[derive(Default)]
struct Server {
    connections: AtomicUsize,
    /// What it was asked for, in the order in which that came.
    paths: Mutex<Vec<String>>,
}

impl Server {
    /// Serves port 8083 of a pod, beside a story.
    fn during<T>(&self, pod: &Pod, story: impl FnOnce() -> Result<T>) -> Result<T> {
        let serve = || async {
            let listener = TcpListener::bind("0.0.0.0:8083").await.unwrap();
            let mut served = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        self.connections.fetch_add(1, Relaxed);
                        served.push(self.serve(accepted.unwrap().0));
                    }
                    Some(()) = served.next() => {}
                }
            }
        };
        beside(pod, serve, story)
    }

    async fn serve(&self, stream: TcpStream) {
        let mut builder = server::Builder::new();
        // A connection that ends before it is one is the client's business.
        let Ok(mut connection) = builder.enable_connect_protocol().handshake(stream).await else {
            return;
        };
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = answers.next() => {}
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        self.paths.lock().unwrap().push(request.uri().path().to_owned());
                        answers.push(echo(request, respond));
                    }
                    _ => return,
                },
            }
        }
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

/// Answers with what comes, as it comes.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let Ok(mut send) = respond.send_response(Response::new(()), false) else {
        return;
    };
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if send.send_data(data, false).is_err() {
            return;
        }
    }
    // The client may be gone.
    let _ = send.send_data(Bytes::new(), true);
}

/// What came of a request: its status, and the body of its answer.
type Told = (StatusCode, String);

/// Asks for something with a body, on a connection of its own.
async fn ask(stream: TcpStream, request: Request<()>, body: &'static str) -> Told {
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (response, mut send) = sender.send_request(request, false).unwrap();
    send.send_data(body.into(), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        text.extend(data);
    }
    driver.abort();
    (head.status, String::from_utf8(text).unwrap())
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://front{path}"))
        .body(())
        .unwrap()
}

#[test]
fn websockets_over_http2_reach_servers_of_it_and_are_judged_by_their_path() -> Result<()> {
    let lab = Lab::builder("l7-extended").build()?;
    let stage = Stage::open(&lab)?;
    lab.apply("policy.yaml", &deny("front-one", r#"paths: ["/admin*"]"#))?;
    let _mesh = stage.mesh(&lab, &[])?;
    let at: SocketAddr = stage.at(Of::One, 83).parse().unwrap();
    let connect = |path: &'static str, protocol: &'static str| {
        block_on(&stage.friend, move || async move {
            let mut request = get(path);
            *request.method_mut() = Method::CONNECT;
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
            ask(TcpStream::connect(at).await.unwrap(), request, "hello").await
        })
    };
    let server = Server::default();
    server.during(&stage.pods[0], || {
        for (path, protocol, status) in [
            ("/chat", "websocket", 200),
            ("/admin", "websocket", 403),
            ("/chat/%2e%2e/admin", "websocket", 403),
            ("/chat", "connect-udp", 501),
            ("/chat", "Connect-IP", 501),
            ("/chat", "h2c", 501),
            ("/chat/2", "websocket", 200),
        ] {
            let (told, echoed) = connect(path, protocol)?;
            assert_eq!(told, status, "{protocol} {path}: {echoed}");
            assert_eq!(
                echoed == "hello",
                status == 200,
                "{protocol} {path}: {echoed}"
            );
        }
        assert_eq!(server.paths(), ["/chat", "/chat/2"]);
        Ok(())
    })
}

#[test]
fn a_server_of_http2_that_speaks_first_is_known_for_one() -> Result<()> {
    let lab = Lab::builder("l7-settings").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let at = stage.at(Of::One, 83);
    let server = Server::default();
    server.during(&stage.pods[0], || {
        // It waits for its server, which is then connected to, and says its SETTINGS.
        let stream = stage
            .friend
            .in_namespace(|| StdStream::connect(&at))?
            .unwrap();
        eventually("the server to be asked whether it speaks", DEADLINE, || {
            server.connections.load(Relaxed) == 1
        });
        let told = block_on(&stage.friend, || async {
            stream.set_nonblocking(true).unwrap();
            ask(TcpStream::from_std(stream).unwrap(), get("/late"), "a").await
        })?;
        assert_eq!(told, (StatusCode::OK, "a".into()));
        let told = block_on(&stage.friend, || async {
            ask(TcpStream::connect(&at).await.unwrap(), get("/early"), "b").await
        })?;
        assert_eq!(told, (StatusCode::OK, "b".into()));
        assert_eq!(server.paths(), ["/late", "/early"]);
        Ok(())
    })
}

/// Requests at once to a server that goes away, and how many of them it takes.
const AT_ONCE: usize = 10;
const TAKEN: usize = 4;

/// A server that takes some of the first requests, says so, and answers them then.
#[derive(Default)]
struct Leaving {
    /// Streams of each connection, in the order in which these were opened.
    streams: Mutex<Vec<Vec<u32>>>,
}

impl Leaving {
    async fn serve(&self) {
        let listener = TcpListener::bind("0.0.0.0:8083").await.unwrap();
        let mut served = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => served.push(self.connection(accepted.unwrap().0)),
                Some(ended) = served.next() => drop::<io::Result<()>>(ended),
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.read_exact(&mut [0; PREFACE]).await?;
        let number = {
            let mut streams = self.streams.lock().unwrap();
            streams.push(Vec::new());
            streams.len() - 1
        };
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
                (PING, 0) => stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
                (HEADERS, _) => {
                    let said = self.said(number, id);
                    stream.write_all(&said).await?;
                }
                _ => {}
            }
        }
    }

    /// What is to be said to a new stream of a connection.
    fn said(&self, number: usize, id: u32) -> Vec<u8> {
        let mut streams = self.streams.lock().unwrap();
        streams[number].push(id);
        // `:status: 200` by its index (RFC 7541, appendix A), and the end.
        let ok = |id: u32| frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
        match (number, &streams[number][..]) {
            (0, all) if all.len() < AT_ONCE => Vec::new(),
            (0, all) => {
                let last = [all[TAKEN - 1].to_be_bytes(), [0; 4]].concat();
                let taken = all[..TAKEN].iter().flat_map(|id| ok(*id));
                frame(GOAWAY, 0, 0, &last)
                    .into_iter()
                    .chain(taken)
                    .collect()
            }
            _ => ok(id),
        }
    }
}

#[test]
fn requests_that_a_server_did_not_take_before_it_left_are_sent_again() -> Result<()> {
    let lab = Lab::builder("l7-goaway").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let at: SocketAddr = stage.at(Of::One, 83).parse().unwrap();
    let server = Leaving::default();
    beside(
        &stage.pods[0],
        || server.serve(),
        || {
            let statuses = block_on(&stage.friend, || async {
                let stream = TcpStream::connect(at).await.unwrap();
                let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                let mut sender: SendRequest<Bytes> = sender.ready().await.unwrap();
                let answers: Vec<_> = (0..AT_ONCE)
                    .map(|_| sender.send_request(get("/"), true).unwrap().0)
                    .collect();
                let answers = join_all(answers).await.into_iter();
                answers.map(|it| it.unwrap().status()).collect::<Vec<_>>()
            })?;
            assert_eq!(statuses, [StatusCode::OK; AT_ONCE]);
            let streams = server.streams.lock().unwrap();
            let counts: Vec<_> = streams.iter().map(Vec::len).collect();
            assert_eq!(counts[0], AT_ONCE, "{counts:?}");
            let again: usize = counts[1..].iter().sum();
            assert_eq!(again, AT_ONCE - TAKEN, "none twice: {counts:?}");
            Ok(())
        },
    )
}
