//! Clients that keep their connections, ask again and again, and remember every request that failed.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{Place, Result, eventually};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{beside::beside, shop::DEADLINE};

/// From an answer to the next request.
const PAUSE: Duration = Duration::from_millis(15);
/// Connections of either protocol.
const CONNECTIONS: usize = 3;
/// Requests at once on one of HTTP/2.
const STREAMS: usize = 3;
/// What is asked for: answered at once, and slowly enough to be under way whatever happens.
const PATHS: [&str; 3] = ["/steady", "/steady?delay=100ms", "/steady?delay=700ms"];

type Body = Full<Bytes>;
type Failure = Box<dyn Error + Send + Sync>;

/// What came of all requests so far.
#[derive(Default)]
pub(crate) struct Steady {
    answered: AtomicUsize,
    connected: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Steady {
    /// Asks a server of HTTP over and over, from a pod, while a story is told.
    pub(crate) fn during<T>(
        &self,
        client: &Place,
        server: SocketAddr,
        story: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let ask = || async {
            let connections = (0..CONNECTIONS).flat_map(|_| [false, true]);
            let clients = connections.enumerate().map(|(index, is_http2)| {
                self.keep_asking(Connection::new(server, is_http2), PATHS[index / 2])
            });
            join_all(clients).await;
        };
        beside(client, ask, story)
    }

    /// Waits for so many more requests to be over.
    pub(crate) fn await_more(&self, requests: usize) {
        let before = self.over();
        eventually("the clients to go on", DEADLINE, || {
            self.over() >= before + requests
        });
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Relaxed)
    }

    /// Connections that were opened.
    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    fn over(&self) -> usize {
        self.answered() + self.failures().len()
    }

    async fn keep_asking(&self, connection: Connection, path: &str) {
        let streams = if connection.is_http2 { STREAMS } else { 1 };
        let streams = (0..streams).map(|_| async {
            loop {
                let answer = timeout(DEADLINE, self.request(&connection, path));
                match answer.await.unwrap_or_else(|late| Err(late.into())) {
                    Ok(()) => drop(self.answered.fetch_add(1, Relaxed)),
                    Err(error) => {
                        let which = if connection.is_http2 {
                            "HTTP/2"
                        } else {
                            "HTTP/1.1"
                        };
                        let failure = format!("{which} {path}: {error:?}");
                        self.failures.lock().unwrap().push(failure);
                    }
                }
                sleep(PAUSE).await;
            }
        });
        join_all(streams).await;
    }

    /// One that does harm if it is made twice, so that nobody may send it again but who knows that nothing of it
    /// has gone: as here, where the connection was closed before it was written.
    async fn request(&self, connection: &Connection, path: &str) -> Result<(), Failure> {
        let mut request = connection.request(path)?;
        let (sender, response) = loop {
            let (mut sender, is_new) = match connection.take().await {
                Some(sender) => (sender, false),
                None => {
                    self.connected.fetch_add(1, Relaxed);
                    (connection.open().await?, true)
                }
            };
            let mut failed = match sender.send(request).await {
                Ok(response) => break (sender, response),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(failed.into_error().into()),
            }
        };
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.give_back(sender);
        if status.is_success() {
            return Ok(());
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
    }
}

/// To one server: kept for as long as that wants it.
struct Connection {
    server: SocketAddr,
    is_http2: bool,
    kept: Mutex<Option<Sender>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    fn new(server: SocketAddr, is_http2: bool) -> Self {
        Self {
            server,
            is_http2,
            kept: Mutex::default(),
        }
    }

    fn request(&self, path: &str) -> Result<Request<Body>, Failure> {
        let request = Request::post(match self.is_http2 {
            true => format!("http://front{path}"),
            false => path.to_owned(),
        });
        let request = match self.is_http2 {
            true => request,
            false => request.header(HOST, "front"),
        };
        Ok(request.body(Full::from("something"))?)
    }

    /// The one that is kept, if it can be used. That of HTTP/2 is shared.
    async fn take(&self) -> Option<Sender> {
        let mut sender = {
            let mut kept = self.kept.lock().unwrap();
            let shared = match &*kept {
                Some(Sender::Http2(sender)) => Some(Sender::Http2(sender.clone())),
                _ => None,
            };
            shared.or_else(|| kept.take())?
        };
        let is_ready = match &mut sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        };
        is_ready.then_some(sender)
    }

    async fn open(&self) -> Result<Sender, Failure> {
        let io = TokioIo::new(TcpStream::connect(self.server).await?);
        if !self.is_http2 {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            return Ok(Sender::Http1(sender));
        }
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(driver);
        *self.kept.lock().unwrap() = Some(Sender::Http2(sender.clone()));
        Ok(Sender::Http2(sender))
    }

    fn give_back(&self, sender: Sender) {
        if let Sender::Http1(_) = sender {
            *self.kept.lock().unwrap() = Some(sender);
        }
    }
}

impl Sender {
    async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}
