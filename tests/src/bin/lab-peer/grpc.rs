//! gRPC: method `/lab.Echo/Call`, of as many messages in both directions as the client wants.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use clap::Args;
use futures::{Stream, StreamExt as _, future::BoxFuture, stream};
use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Response, Status, Streaming, client,
    metadata::MetadataMap,
    server::{self, StreamingService},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{Client, Server, asynchronous, http_client::header, http_server::texts, report};

const PATH: &str = "/lab.Echo/Call";

#[derive(Args)]
pub(crate) struct GrpcServer {
    #[command(flatten)]
    server: Server,
    /// Which server this is.
    #[arg(long, default_value = "server")]
    name: Arc<str>,
}

#[derive(Args)]
pub(crate) struct GrpcClient {
    #[command(flatten)]
    client: Client,
    /// As http://host; its host is the authority, whatever is connected to.
    #[arg(long)]
    url: Uri,
    /// How many messages it sends: one for a unary call.
    #[arg(long, default_value_t = 1)]
    messages: usize,
    /// For how long it pauses before each, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Reports the first reply as it comes, as `{"first": 1}`.
    #[arg(long)]
    report_first: bool,
    /// How many replies each has.
    #[arg(long, default_value_t = 1)]
    replies: u32,
    /// The status that the call ends with, after the first message's replies.
    #[arg(long, default_value_t = 0)]
    fail: i32,
    /// Metadata, as `name: value`; may be given several times.
    #[arg(long = "metadata", value_parser = header)]
    metadata: Vec<(HeaderName, HeaderValue)>,
}

/// What the client sends.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    replies: u32,
    #[prost(int32, tag = "3")]
    fail: i32,
}

/// What the server answers.
#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(string, tag = "2")]
    name: String,
    /// Of the call.
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// Serves for ever; a report a call.
pub(crate) fn serve(arguments: GrpcServer) -> anyhow::Result<()> {
    let GrpcServer { server, name } = arguments;
    asynchronous::serve(&server, move |stream, _| {
        let name = Arc::clone(&name);
        async move {
            let answer = |request: http::Request<Incoming>| {
                let echo = Echo(Arc::clone(&name));
                async move {
                    let seen = json!({
                        "path": request.uri().path(),
                        "headers": texts(request.headers()),
                    });
                    let _ = report(&seen);
                    let mut grpc = server::Grpc::new(ProstCodec::<Reply, Ask>::default());
                    Ok::<_, std::convert::Infallible>(grpc.streaming(echo, request).await)
                }
            };
            // How a connection ends is the client's to tell.
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        }
    })
}

struct Echo(Arc<str>);

impl StreamingService<Ask> for Echo {
    type Response = Reply;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let name = Arc::clone(&self.0);
        Box::pin(async move {
            let (metadata, _, asks) = request.into_parts();
            let metadata = reflected(metadata);
            let replies = asks.flat_map(move |ask| {
                let replies = match ask {
                    Ok(ask) => replies(&ask, &name, &metadata),
                    Err(status) => vec![Err(status)],
                };
                stream::iter(replies)
            });
            Ok(Response::new(Box::pin(replies) as Self::ResponseStream))
        })
    }
}

fn replies(
    ask: &Ask,
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Vec<Result<Reply, Status>> {
    let reply = Reply {
        text: ask.text.clone(),
        name: name.to_owned(),
        metadata: metadata.clone(),
    };
    let mut all = vec![Ok(reply); ask.replies as usize];
    if ask.fail != 0 {
        all.push(Err(Status::new(Code::from_i32(ask.fail), "as asked for")));
    }
    all
}

fn reflected(metadata: MetadataMap) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = metadata.into_headers();
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)));
    pairs.collect()
}

/// Prints replies, status and trailers.
pub(crate) fn run(arguments: &GrpcClient) -> anyhow::Result<()> {
    asynchronous::block_on(async {
        let mut replies = Vec::new();
        let deadline = Duration::from_millis(arguments.client.timeout_ms);
        let status = match timeout(deadline, call(arguments, &mut replies)).await {
            Ok(Ok(())) => Status::ok(""),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("timeout of the client itself"),
        };
        let replies = replies.iter().map(
            |reply| json!({ "text": reply.text, "name": reply.name, "metadata": reply.metadata }),
        );
        report(&json!({
            "replies": replies.collect::<Vec<_>>(),
            "status": status.code() as i32,
            "message": status.message(),
            "trailers": texts(&status.metadata().clone().into_headers()),
        }))
    })
}

async fn call(arguments: &GrpcClient, replies: &mut Vec<Reply>) -> Result<(), Status> {
    let unavailable = |error: tonic::transport::Error| {
        let error = anyhow::Error::from(error);
        Status::unavailable(format!("{error:#}"))
    };
    let address = format!("http://{}", arguments.client.connect);
    let endpoint = Channel::from_shared(address)
        .map_err(|error| Status::internal(error.to_string()))?
        .origin(arguments.url.clone());
    let channel = endpoint.connect().await.map_err(unavailable)?;
    let mut grpc = client::Grpc::new(channel);
    grpc.ready().await.map_err(unavailable)?;
    let ask = Ask {
        text: "hello".into(),
        replies: arguments.replies,
        fail: arguments.fail,
    };
    let pause = Duration::from_millis(arguments.pause_ms);
    let asks = stream::iter(vec![ask; arguments.messages]).then(move |ask| async move {
        sleep(pause).await;
        ask
    });
    let mut request = Request::new(asks);
    for (name, value) in &arguments.metadata {
        let headers = std::mem::take(request.metadata_mut()).into_headers();
        let mut headers = headers;
        headers.append(name, value.clone());
        *request.metadata_mut() = MetadataMap::from_headers(headers);
    }
    let codec = ProstCodec::<Ask, Reply>::default();
    let path = PathAndQuery::from_static(PATH);
    let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
    while let Some(reply) = answers.message().await? {
        replies.push(reply);
        if arguments.report_first && replies.len() == 1 {
            let _ = report(&json!({ "first": 1 }));
        }
    }
    Ok(())
}
