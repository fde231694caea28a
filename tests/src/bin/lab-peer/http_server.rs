//! A server of HTTP/1.1 and, for who begins with its preface, of HTTP/2, that answers with what it
//! has seen. A query has it do other things; see [`Wish`].

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Error,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::{Server, asynchronous, connection::hexadecimal, report};

const TRAILER: HeaderName = HeaderName::from_static("x-trailer");

#[derive(Args)]
pub(crate) struct HttpServer {
    #[command(flatten)]
    server: Server,
    /// Which server this is, for clients that have several to meet.
    #[arg(long, default_value = "server")]
    name: Arc<str>,
}

/// What a query asks for.
#[derive(Default)]
struct Wish {
    /// `status=503`.
    status: StatusCode,
    /// `delay=200ms`, or `delay=2s`: before the answer.
    delay: Duration,
    /// `body=1000`: so many bytes more in the answer.
    body: usize,
    /// `fail-first=2`: 503 for so many requests, counted by `key`.
    fail_first: usize,
    key: String,
    /// `close`: the connection ends with the answer (HTTP/1.1).
    close: bool,
    /// `abort`: the connection or stream ends without an answer.
    abort: bool,
    /// `trailers`: the answer has trailer `x-trailer: yes`.
    trailers: bool,
    /// `echo`: the answer is the request's body, as it comes.
    echo: bool,
}

type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// Serves for ever; a report a request.
pub(crate) fn run(arguments: HttpServer) -> anyhow::Result<()> {
    let HttpServer { server, name } = arguments;
    let counts = Counts::default();
    asynchronous::serve(&server, move |stream, peer| {
        let (name, counts) = (Arc::clone(&name), Arc::clone(&counts));
        async move {
            let answer = |request| answer(request, Arc::clone(&name), counts.clone(), peer);
            // How a connection ends is the client's to tell.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    name: Arc<str>,
    counts: Counts,
    peer: SocketAddr,
) -> io::Result<Response<BoxBody<Bytes, Error>>> {
    let (head, body) = request.into_parts();
    let wish = Wish::of(head.uri.query().unwrap_or_default())?;
    if wish.echo {
        return Ok(Response::new(body.boxed()));
    }
    let body = body.collect().await.map_err(io::Error::other)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    let mut seen = json!({
        "name": &*name,
        "peer": peer.to_string(),
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "authority": head.uri.authority().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": texts(&head.headers),
        "body_bytes": body.len(),
        "body_sha256": hexadecimal(Sha256::new_with_prefix(&body)),
        "trailers": texts(&trailers),
    });
    // It isn't the test's to learn that it can't be told any more.
    let _ = report(&seen);
    sleep(wish.delay).await;
    if wish.abort {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let mut status = wish.status;
    if wish.fails(&counts) {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    if wish.body > 0 {
        seen["padding"] = "x".repeat(wish.body).into();
    }
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json");
    if wish.close {
        response = response.header(header::CONNECTION, "close");
    }
    let body = Bytes::from(seen.to_string());
    let body = if wish.trailers {
        response = response.header(header::TRAILER, TRAILER);
        let trailers = HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("yes"))]);
        // Of a length that isn't known, for else HTTP/1.1 has no trailers.
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok);
        StreamBody::new(stream::iter(frames)).boxed()
    } else {
        Full::new(body).map_err(|never| match never {}).boxed()
    };
    response.body(body).map_err(io::Error::other)
}

impl Wish {
    fn of(query: &str) -> io::Result<Self> {
        let mut wish = Self::default();
        for part in query.split('&') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let wrong = || io::Error::other(format!("{part:?} is not understood"));
            match key {
                "status" => wish.status = value.parse().map_err(|_| wrong())?,
                "delay" => wish.delay = duration(value).ok_or_else(wrong)?,
                "body" => wish.body = value.parse().map_err(|_| wrong())?,
                "fail-first" => wish.fail_first = value.parse().map_err(|_| wrong())?,
                "key" => value.clone_into(&mut wish.key),
                "close" => wish.close = true,
                "abort" => wish.abort = true,
                "trailers" => wish.trailers = true,
                "echo" => wish.echo = true,
                // Of others, for whoever looks at the answer.
                _ => {}
            }
        }
        Ok(wish)
    }

    fn fails(&self, counts: &Counts) -> bool {
        if self.fail_first == 0 {
            return false;
        }
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(self.key.clone()).or_default();
        *count += 1;
        *count <= self.fail_first
    }
}

fn duration(text: &str) -> Option<Duration> {
    let millis = text.strip_suffix("ms").map(|number| (number, 1));
    let (number, factor) = millis.or_else(|| Some((text.strip_suffix('s')?, 1000)))?;
    Some(Duration::from_millis(number.parse::<u64>().ok()? * factor))
}

/// The values of each header, in their order.
pub(crate) fn texts(headers: &HeaderMap) -> Value {
    let mut all = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.as_str()).or_default().push(text);
    }
    json!(all)
}
