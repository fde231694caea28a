//! Tunnels inside one process, for tests.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Authority, Baggage, HboneStream, RequestHeaders, Settings,
    client::{OpenError, Tunnel, TunnelError},
    server::{InboundRequest, ServeError, serve},
    stream::StreamError,
};

pub(crate) const TARGET: &str = "10.0.0.1:80";

/// A client's tunnel, and what runs the two ends.
pub(crate) struct Pair {
    pub(crate) tunnel: Tunnel,
    pub(crate) requests: mpsc::UnboundedReceiver<InboundRequest>,
    pub(crate) drain: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), ServeError>>,
    pub(crate) driver: JoinHandle<Result<(), TunnelError>>,
}

/// Requests go to `Pair::requests`.
pub(crate) async fn pair(settings: Settings) -> Pair {
    let (client, server) = duplex(256 * 1024);
    pair_over(client, server, settings.clone(), settings).await
}

pub(crate) async fn pair_over(
    client: DuplexStream,
    server: DuplexStream,
    client_settings: Settings,
    server_settings: Settings,
) -> Pair {
    let (sender, requests) = mpsc::unbounded_channel();
    let drain = CancellationToken::new();
    let token = drain.clone();
    let server = tokio::spawn(async move {
        let handler = |request| {
            let _ = sender.send(request);
            std::future::ready(())
        };
        serve(server, &server_settings, handler, token).await
    });
    let (tunnel, driver) = Tunnel::handshake(client, client_settings).await.unwrap();
    Pair {
        tunnel,
        requests,
        drain,
        server,
        driver: tokio::spawn(driver),
    }
}

impl Pair {
    /// Both ends of a new stream: the client's, the server's.
    pub(crate) async fn stream(&mut self) -> (HboneStream, HboneStream) {
        let accept = async {
            let request = self.requests.recv().await.unwrap();
            request.accept(&Baggage::default()).unwrap()
        };
        let (client, server) = tokio::join!(open(&self.tunnel, TARGET), accept);
        (client.unwrap(), server)
    }
}

pub(crate) async fn open(tunnel: &Tunnel, authority: &str) -> Result<HboneStream, OpenError> {
    let authority: Authority = authority.parse().unwrap();
    tunnel
        .open(&authority, &RequestHeaders::default(), in_a_minute())
        .await
}

pub(crate) fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Accepts the request and sends back what comes, to the end.
pub(crate) async fn echo(request: InboundRequest) {
    let mut stream = request.accept(&Baggage::default()).unwrap();
    let (send, receive) = stream.halves();
    while let Ok(Some(data)) = receive.data().await {
        let bytes = data.len();
        if send.send(data).await.is_err() {
            return;
        }
        receive.release(bytes);
    }
    let _ = send.finish();
}

/// All that comes until the half-close.
pub(crate) async fn read_all(stream: &mut HboneStream) -> Result<Vec<u8>, StreamError> {
    let (_, receive) = stream.halves();
    let mut all = Vec::new();
    while let Some(data) = receive.data().await? {
        receive.release(data.len());
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Sends, half-closes, and gives what comes back.
pub(crate) async fn exchange(stream: &mut HboneStream, data: &[u8]) -> Vec<u8> {
    let (send, _) = stream.halves();
    send.send(Bytes::copy_from_slice(data)).await.unwrap();
    send.finish().unwrap();
    read_all(stream).await.unwrap()
}
