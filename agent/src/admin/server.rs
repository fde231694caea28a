//! A bounded HTTP/1 server.
//!
//! One request a connection, and one deadline for the whole of it: a client that sends its header
//! byte by byte, or never reads the answer, holds one of few places for a short time. Scrapers and
//! probes open a connection each time anyhow, so keep-alive would buy nothing.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A pause after a failed accept. Nothing tells when descriptors are free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper's own minimum is 8 KiB.
const BUFFER_BYTES: usize = 16 * 1024;

const HEADERS: usize = 64;

/// What clients of one endpoint may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog. Default: 32.
    pub connections: usize,
    /// From accept to the last byte of the answer. Default: 10 s, Prometheus's scrape timeout.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Serves until cancelled, then waits for requests under way, at most for the deadline.
pub(super) async fn serve<H, F>(
    listener: TcpListener,
    limits: Limits,
    cancellation: CancellationToken,
    handle: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to an admin port");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let handle = handle.clone();
            let service = service_fn(move |request| {
                let response = handle(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(BUFFER_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tasks.spawn(async move {
                // Late, broken and aborted requests are the client's own trouble.
                let _ = time::timeout(limits.deadline, connection).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = cancellation.cancelled() => {}
    }
    // Nobody should wait for an answer here while another agent gives it.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}
