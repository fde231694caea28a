//! HTTP through a waypoint: a client's connection, served request by request.

mod body;
mod decide;
mod exchange;
mod forward;
mod headers;
mod http1;
mod limits;
mod mirror;
mod plan;
mod reply;
mod tries;
pub(super) mod under_way;
mod upgrade;
pub(super) mod upstream;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::FutureExt;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use self::headers::ClientNames;
use super::{detect::Spoken, stream::Client};
use crate::proxy::{connections::ConnectionGuard, tunnel_io::TunnelIo};

/// How long a connection may be without a whole request head, between requests too. Clients keep idle
/// connections for minutes, and one that is closed under a request fails it.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// For how long a connection of HTTP/1.1, or one that nothing was said on yet, waits for one more request when the
/// waypoint drains. That is answered with `Connection: close`: closed at once, it might meet a request that is on
/// its way.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(5);
/// Bytes of a request's head, HTTP/1.1, and of its header list, HTTP/2. Envoy's default.
const MAX_HEAD: u16 = 60 * 1024;
/// Header fields of a request.
const MAX_HEADERS: usize = 200;
/// Requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 256;
/// What may be in flight of one request's body, and of all of a connection's, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// When an idle connection of HTTP/2 is asked whether its client is still there, and for how long.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);

/// Serves a client's connection until either side closes it, or `guard` or a drain does.
pub(super) async fn serve(
    client: &Arc<Client>,
    io: TunnelIo,
    spoken: Spoken,
    guard: ConnectionGuard,
) {
    let names = match ClientNames::new(&client.ends.client, client.source_address.ip()) {
        Ok(names) => Arc::new(names),
        Err(error) => {
            tracing::warn!(client = %client.ends.client, "no server could be told who it is: {error}");
            return;
        }
    };
    let guard = Arc::new(guard);
    let service = service_fn(|request: Request<Incoming>| {
        let (client, guard, names) = (client.clone(), guard.clone(), names.clone());
        // In memory only while there is one.
        let answer = Box::pin(exchange::serve(client, guard, names, request));
        answer.map(Ok::<_, Infallible>)
    });
    let (core, token) = (&client.waypoint.core, guard.token());
    let served = match spoken {
        Spoken::Http2 => {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEAD.into())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG)
                .enable_connect_protocol();
            let mut connection = Box::pin(server.serve_connection(TokioIo::new(io), service));
            Box::pin(async {
                tokio::select! {
                    served = &mut connection => return served,
                    () = token.cancelled() => return Ok(()),
                    () = core.drained_for(Duration::ZERO) => connection.as_mut().graceful_shutdown(),
                }
                tokio::select! {
                    served = connection => served,
                    () = token.cancelled() => Ok(()),
                }
            })
            .await
            .map_err(http1::Error::Http)
        }
        Spoken::Http1 | Spoken::Other => {
            let drained = core.drained_for(LAST_REQUEST);
            Box::pin(http1::serve(io, service, token.cancelled(), drained)).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(client = %client.ends.client, "an HTTP connection ended: {error}");
    }
}
