//! A client of HTTP/1.1 or, with prior knowledge, of HTTP/2: requests one after the other on one
//! connection, and what came of each.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::{Client, asynchronous, connection, http_server::texts, report};

#[derive(Args)]
pub(crate) struct HttpClient {
    #[command(flatten)]
    client: Client,
    /// What is asked for; its host is the authority, whatever is connected to.
    #[arg(long)]
    url: Uri,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// A header, as `name: value`; may be given several times.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How many bytes the request's body has.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// How many requests.
    #[arg(long, default_value_t = 1)]
    requests: usize,
    /// HTTP/2 instead of HTTP/1.1.
    #[arg(long)]
    http2: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Prints `{"responses": [...]}`, and as `end` why there aren't as many as there should be.
pub(crate) fn run(arguments: &HttpClient) -> anyhow::Result<()> {
    asynchronous::block_on(async {
        let mut responses = Vec::new();
        let deadline = Duration::from_millis(arguments.client.timeout_ms);
        let talk = timeout(deadline, ask(arguments, &mut responses)).await;
        let end = match talk {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(told(&error)),
            Err(_) => Some("timeout".to_owned()),
        };
        report(&json!({ "responses": responses, "end": end }))
    })
}

/// What an operating system says, if it is at the bottom of it.
fn told(error: &anyhow::Error) -> String {
    let mut causes = error.chain();
    let io = causes.find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map_or_else(|| format!("{error:#}"), connection::end)
}

async fn ask(arguments: &HttpClient, responses: &mut Vec<Value>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(arguments.client.connect).await?;
    let io = TokioIo::new(stream);
    let mut sender = if arguments.http2 {
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(driver);
        Sender::Http2(sender)
    } else {
        let (sender, driver) = http1::handshake(io).await?;
        tokio::spawn(driver);
        Sender::Http1(sender)
    };
    for _ in 0..arguments.requests {
        let informational = Arc::<Mutex<Vec<u16>>>::default();
        let mut request = request(arguments)?;
        let seen = Arc::clone(&informational);
        hyper::ext::on_informational(&mut request, move |response| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(response.status().as_u16());
        });
        let response = match &mut sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let mut said = read(response).await?;
        let seen = informational.lock().unwrap_or_else(PoisonError::into_inner);
        said["informational"] = json!(*seen);
        responses.push(said);
    }
    Ok(())
}

fn request(arguments: &HttpClient) -> anyhow::Result<Request<Full<Bytes>>> {
    let authority = arguments.url.authority().context("--url has no host")?;
    let mut request = Request::builder().method(&arguments.method);
    request = if arguments.http2 {
        request.uri(&arguments.url)
    } else {
        let target = arguments.url.path_and_query().map_or("/", |it| it.as_str());
        request.uri(target).header("host", authority.as_str())
    };
    for (name, value) in &arguments.headers {
        request = request.header(name, value);
    }
    // Of a period that is no multiple of any buffer's length, so that bytes out of place show.
    let body: Vec<u8> = (0..=250).cycle().take(arguments.body).collect();
    Ok(request.body(Full::new(Bytes::from(body)))?)
}

async fn read(response: Response<Incoming>) -> anyhow::Result<Value> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let bytes = body.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
    Ok(json!({
        "status": head.status.as_u16(),
        "version": format!("{:?}", head.version),
        "headers": texts(&head.headers),
        "body": body,
        "trailers": texts(&trailers),
    }))
}

pub(crate) fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("no colon in it")?;
    Ok((name.parse()?, value.trim().parse()?))
}
