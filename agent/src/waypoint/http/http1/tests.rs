use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use http::{Method, Request, Response, StatusCode, header::UPGRADE};
use http_body_util::{BodyExt as _, Full};
use hyper::{service::service_fn, upgrade::OnUpgrade};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
/// What is answered to it.
const DONE: &str = "done";
const LONG: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// A served connection's I/O. Whoever reads it is known by how much they read at once.
struct Spied {
    io: DuplexStream,
    parked: Arc<AtomicUsize>,
    is_parked: bool,
}

/// Its other end.
struct Peer {
    io: DuplexStream,
    /// How often the connection was parked, twice, and once less while it is.
    parked: Arc<AtomicUsize>,
    cancelled: CancellationToken,
    drained: CancellationToken,
    serving: JoinHandle<Result<(), Error>>,
}

impl Peer {
    /// `room` is how many bytes either end may send before the other reads.
    fn connect(room: usize) -> Self {
        let (io, served) = duplex(room);
        let parked = Arc::<AtomicUsize>::default();
        let spied = Spied {
            io: served,
            parked: parked.clone(),
            is_parked: false,
        };
        let (cancelled, drained) = (CancellationToken::new(), CancellationToken::new());
        let (cancel, drain) = (cancelled.clone(), drained.clone());
        let serving = tokio::spawn(serve(
            spied,
            service_fn(answer),
            cancel.cancelled_owned(),
            drain.cancelled_owned(),
        ));
        Self {
            io,
            parked,
            cancelled,
            drained,
            serving,
        }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what was read ends so.
    async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let hearing = async {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(self.io.read_u8().await.unwrap());
            }
        };
        let is_heard = timeout(DEADLINE, hearing).await.is_ok();
        let heard = String::from_utf8(heard).unwrap();
        assert!(is_heard, "no {end:?} in {heard:?}");
        heard
    }

    async fn ask(&mut self) {
        self.send(GET).await;
        let heard = self.hear(DONE).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    }

    fn is_parked(&self) -> bool {
        self.parked.load(Relaxed) % 2 == 1
    }

    fn times_parked(&self) -> usize {
        self.parked.load(Relaxed).div_ceil(2)
    }

    async fn await_parked(&self) {
        let parked = async {
            while !self.is_parked() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, parked).await.unwrap();
    }

    /// It isn't parked although it has nothing to do for long enough.
    async fn await_unparked(&self) {
        sleep(5 * MOMENT).await;
        assert!(!self.is_parked());
    }

    /// What else comes before the end, which must come.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        let read = timeout(DEADLINE, self.io.read_to_string(&mut rest)).await;
        read.expect("it stays open").unwrap();
        rest
    }
}

impl AsyncRead for Spied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_parked = buffer.remaining() == FIRST_READ;
        if is_parked != self.is_parked {
            self.is_parked = is_parked;
            self.parked.fetch_add(1, Relaxed);
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Spied {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let is_connect = request.method() == Method::CONNECT;
    let mut response = Response::new(Full::from(DONE));
    match request.uri().path() {
        "/refused" => {}
        "/read" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            *response.body_mut() = body.into();
        }
        // Before the body has come, which is read meanwhile.
        "/early" => {
            tokio::spawn(request.into_body().collect());
            *response.body_mut() = format!("{}{DONE}", "x".repeat(LONG)).into();
        }
        _ => {
            if let Some(upgrade) = upgrade {
                *response.body_mut() = Full::default();
                if !is_connect {
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    let protocol = http::HeaderValue::from_static("echo");
                    response.headers_mut().insert(UPGRADE, protocol);
                }
                tokio::spawn(echo(upgrade));
            }
        }
    }
    Ok(response)
}

async fn echo(upgrade: OnUpgrade) {
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_parked_and_used_again_as_often_as_one_likes() {
    let mut peer = Peer::connect(1024);
    for times in 1..4 {
        peer.ask().await;
        peer.ask().await;
        peer.await_parked().await;
        assert_eq!(peer.times_parked(), times);
    }
    drop(peer.io);
    assert!(peer.serving.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_in_use_is_never_parked() {
    let mut peer = Peer::connect(1024);
    for _ in 0..20 {
        peer.ask().await;
        sleep(MOMENT * 9 / 10).await;
    }
    assert_eq!(peer.times_parked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_may_come_in_pieces_however_late() {
    let mut peer = Peer::connect(1024);
    for _ in 0..2 {
        for piece in ["G", "ET / HT", "TP/1.1\r\nhost: h\r", "\n\r\n"] {
            peer.await_parked().await;
            peer.send(piece).await;
        }
        peer.hear(DONE).await;
    }
    // More than one, and a part of the next.
    let both = format!("{GET}{GET}{}", &GET[..9]);
    peer.send(&both).await;
    peer.hear(DONE).await;
    peer.hear(DONE).await;
    peer.await_parked().await;
    peer.send(&GET[9..]).await;
    peer.hear(DONE).await;
    // The end within a head is no request, and nothing to answer.
    peer.send(&GET[..9]).await;
    peer.await_parked().await;
    peer.io.shutdown().await.unwrap();
    assert_eq!(peer.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn an_end_is_answered_with_the_end() {
    let mut peer = Peer::connect(1024);
    peer.ask().await;
    peer.await_parked().await;
    peer.io.shutdown().await.unwrap();
    assert_eq!(peer.rest().await, "");
    assert!(peer.serving.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_when_it_was_waited_for_first() {
    for slowly in [false, true] {
        let mut peer = Peer::connect(1024);
        peer.ask().await;
        let begin = Instant::now();
        let mut slowly = slowly.then_some("GET /");
        while !peer.serving.is_finished() {
            assert!(begin.elapsed() < IDLE + DEADLINE, "it stays open");
            if let Some(piece) = slowly
                .as_mut()
                .filter(|_| begin.elapsed() < IDLE - DEADLINE)
            {
                peer.send(std::mem::replace(piece, "x")).await;
            }
            sleep(IDLE / 40).await;
        }
        assert!(begin.elapsed() >= IDLE, "{:?}", begin.elapsed());
        let ended = peer.serving.await.unwrap();
        assert!(matches!(ended, Err(Error::Http(error)) if error.is_timeout()));
    }
}

#[tokio::test(start_paused = true)]
async fn no_body_is_lost_of_a_request_that_its_server_has_not_read() {
    let mut peer = Peer::connect(64);
    peer.ask().await;
    peer.await_parked().await;
    peer.send("POST /read HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nfour")
        .await;
    peer.await_unparked().await;
    peer.send("more").await;
    peer.hear("\r\n\r\nfourmore").await;
    peer.await_parked().await;

    peer.send("POST /read HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n")
        .await;
    peer.send("content-length: 4\r\n\r\n").await;
    peer.hear("HTTP/1.1 100 Continue\r\n\r\n").await;
    peer.await_unparked().await;
    peer.send("body").await;
    peer.hear("\r\n\r\nbody").await;
    peer.await_parked().await;
    peer.ask().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_of_an_answer_that_its_client_has_not_read() {
    let mut peer = Peer::connect(64);
    peer.send("POST /early HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nfour")
        .await;
    // Answered, and asked no more but for the rest of its body.
    peer.await_unparked().await;
    peer.send("more").await;
    peer.await_unparked().await;
    // Nor if another's head comes in part meanwhile.
    peer.send("GET").await;
    peer.await_unparked().await;
    let heard = peer.hear(DONE).await;
    assert_eq!(heard.matches('x').count(), LONG);
    peer.await_parked().await;
    peer.send(&GET[3..]).await;
    peer.hear(DONE).await;
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_the_request_that_says_so() {
    for request in [
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "not HTTP\r\n\r\n",
    ] {
        let mut peer = Peer::connect(1024);
        peer.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .await;
        let heard = peer.hear(DONE).await;
        assert!(heard.contains("keep-alive"), "{heard}");
        peer.await_parked().await;
        peer.send(request).await;
        let rest = peer.rest().await;
        assert_eq!(rest.ends_with(DONE), request.starts_with("GET"), "{rest}");
        assert_eq!(
            rest.contains(" 400 "),
            !request.starts_with("GET"),
            "{rest}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_upgraded_after_it_was_parked() {
    let upgrade = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    };
    let connect = "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\n";
    for request in [&*upgrade("/"), connect] {
        let mut peer = Peer::connect(1024);
        peer.send(&upgrade("/refused")).await;
        peer.hear(DONE).await;
        peer.await_parked().await;
        // What follows at once isn't HTTP any more.
        peer.send(&format!("{request}hello")).await;
        peer.hear("\r\n\r\nhello").await;
        let parked = peer.times_parked();
        sleep(5 * MOMENT).await;
        peer.send("bye").await;
        peer.io.shutdown().await.unwrap();
        assert_eq!(peer.rest().await, "bye");
        assert_eq!(peer.times_parked(), parked);
    }
}

#[tokio::test(start_paused = true)]
async fn when_it_drains_a_parked_connection_closes_after_what_it_has_come_of_a_request() {
    for (before, after) in [("", ""), ("GET ", &GET[4..]), (GET, "")] {
        let mut peer = Peer::connect(1024);
        peer.ask().await;
        peer.await_parked().await;
        peer.send(before).await;
        peer.drained.cancel();
        peer.send(after).await;
        let rest = peer.rest().await;
        assert_eq!(
            rest.ends_with(DONE),
            !before.is_empty(),
            "{before:?}: {rest}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_that_may_not_stay_ends_at_once() {
    let mut peer = Peer::connect(1024);
    peer.ask().await;
    peer.await_parked().await;
    let before = Instant::now();
    peer.cancelled.cancel();
    assert_eq!(peer.rest().await, "");
    assert_eq!(Instant::now(), before);
}
