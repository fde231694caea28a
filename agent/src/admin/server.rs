//! A bounded HTTP/1 server.
//!
//! One request a connection, and one deadline for the whole of it: a client that sends its header
//! byte by byte, or never reads the answer, holds one of few places for a short time, and none that a
//! newer client needs. Scrapers and probes open a connection each time anyhow, so keep-alive would buy
//! nothing.
//!
//! An endless answer is under no deadline: who gives it bounds how many there are.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::listening::{self, Places};

/// hyper's own minimum is 8 KiB.
const BUFFER_BYTES: usize = 16 * 1024;

const HEADERS: usize = 64;

/// What clients of one endpoint may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; beyond it a newer one takes an older one's place. Default: 32.
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

/// A body: whole, or one that goes on until the client goes or the server is cancelled.
pub(super) type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// An answer whose body is there already.
pub(super) fn whole(answer: Response<Full<Bytes>>) -> Response<Body> {
    answer.map(Either::Left)
}

/// Serves until cancelled, then waits for requests under way, at most for the deadline.
pub(super) async fn serve<H, F>(
    listener: TcpListener,
    limits: Limits,
    cancellation: CancellationToken,
    handle: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Places::new(limits.connections);
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let (stream, client) = listening::accept(&listener).await;
            let Some(place) = places.take(client.ip()).await.map(Arc::new) else {
                continue;
            };
            let (handle, asking) = (handle.clone(), place.clone());
            let is_endless = Arc::new(AtomicBool::new(false));
            let endless = is_endless.clone();
            let service = service_fn(move |request| {
                asking.has_asked();
                let (response, endless) = (handle(request), endless.clone());
                async move {
                    let response = response.await;
                    let is_endless = matches!(response.body(), Either::Right(_));
                    endless.store(is_endless, Ordering::Relaxed);
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(BUFFER_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            let stop = cancellation.clone();
            tasks.spawn(async move {
                place.begin();
                let mut connection = pin!(connection);
                let served = async {
                    // Late, broken and aborted requests are the client's own trouble.
                    let ended = time::timeout(limits.deadline, &mut connection).await;
                    if ended.is_err() && is_endless.load(Ordering::Relaxed) {
                        tokio::select! {
                            _ = &mut connection => {}
                            () = stop.cancelled() => {
                                let _ = time::timeout(limits.deadline, connection).await;
                            }
                        }
                    }
                };
                tokio::select! {
                    () = place.lost() => {}
                    () = served => {}
                }
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
