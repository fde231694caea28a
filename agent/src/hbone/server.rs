//! The server's side of a tunnel.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{
    Authority, Baggage, HboneStream, MAX_HEADER_LIST, REMEMBER_RESETS_FOR, REMEMBERED_RESETS,
    RequestHeaders, SMALL_FRAME_BUDGET, Settings,
    authority::ParseAuthorityError,
    keepalive::{PingTimeout, keepalive},
    stream::StreamError,
    windows::Windows,
};

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// HTTP/2 or the stream below failed.
    #[error("the tunnel failed: {0}")]
    Http2(#[from] h2::Error),
    /// The client said nothing after its TLS handshake.
    #[error("the client did not start HTTP/2 within {}s of its TLS handshake", .0.as_secs())]
    NoPreface(Duration),
    /// The other end is gone.
    #[error(transparent)]
    Dead(#[from] PingTimeout),
}

/// Serves one tunnel over an authenticated stream until it ends. Each request goes to `handler` in
/// a task of its own; the function returns when the last of them has ended, and dropping it ends
/// them all.
///
/// When `drain` is cancelled, the client is told to open no more streams here (GOAWAY); those that
/// are open go on to their end.
///
/// # Errors
/// When the connection failed under its streams, or the other end stopped answering pings.
pub async fn serve<Io, Handler, Done>(
    io: Io,
    settings: &Settings,
    handler: Handler,
    drain: CancellationToken,
) -> Result<(), ServeError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Handler: Fn(InboundRequest) -> Done,
    Done: Future<Output = ()> + Send + 'static,
{
    let limit = settings.ping_timeout;
    let mut connection = timeout(limit, builder(settings).handshake::<_, Bytes>(io))
        .await
        .map_err(|_| ServeError::NoPreface(limit))??;
    let windows = Windows::new(settings);
    let pings = connection.ping_pong();
    let mut keepalive = pin!(async {
        match pings {
            Some(pings) => keepalive(pings, settings, &windows).await,
            None => std::future::pending().await,
        }
    });
    let mut handlers = JoinSet::new();
    let mut draining = false;

    let result = loop {
        select! {
            incoming = connection.accept() => match incoming {
                Some(Ok((request, respond))) => {
                    if let Some(request) = InboundRequest::check(request, respond, &windows) {
                        handlers.spawn(handler(request));
                    }
                }
                // A client that hangs up while nothing is going on, or once it was told to.
                Some(Err(error)) if error.is_io() && (draining || handlers.is_empty()) => {
                    break Ok(());
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(()),
            },
            () = drain.cancelled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            () = windows.changed() => windows.adjust(&mut connection),
            dead = &mut keepalive => break Err(dead.into()),
            Some(ended) = handlers.join_next() => report(ended),
        }
    };

    // Without their connection the streams that are left fail, and their handlers end.
    drop(connection);
    while let Some(ended) = handlers.join_next().await {
        report(ended);
    }
    result
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        error!(%panic, "the handler of an HBONE stream panicked; its stream was reset");
    }
}

fn builder(settings: &Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame_size)
        .max_send_buffer_size(settings.max_send_buffer)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(settings.max_streams)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBER_RESETS_FOR)
        // CVE-2023-44487: streams that the client opened and reset before we looked at them.
        .max_pending_accept_reset_streams(20)
        .data_frame_budget(SMALL_FRAME_BUDGET);
    builder
}

/// A well-formed CONNECT. Dropped without an answer, its stream is reset.
#[derive(Debug)]
pub struct InboundRequest {
    /// Where the client wants to go.
    pub authority: Authority,
    /// What the client's agent says about the client. Not evidence.
    pub headers: RequestHeaders,
    respond: SendResponse<Bytes>,
    receive: RecvStream,
    windows: Arc<Windows>,
}

impl InboundRequest {
    /// Answers what isn't a well-formed CONNECT. An authority that isn't even one by the syntax of
    /// RFC 3986 never comes here: h2 resets its stream, as RFC 9113 section 8.1.1 says.
    fn check(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        windows: &Arc<Windows>,
    ) -> Option<Self> {
        let (head, receive) = request.into_parts();
        if head.method != Method::CONNECT {
            let reason = format!("{} is not CONNECT", head.method);
            refuse(&mut respond, StatusCode::METHOD_NOT_ALLOWED, &reason);
            return None;
        }
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        match authority
            .ok_or(ParseAuthorityError::Missing)
            .and_then(str::parse)
        {
            Ok(authority) => Some(Self {
                authority,
                headers: RequestHeaders::parse(&head.headers),
                respond,
                receive,
                windows: Arc::clone(windows),
            }),
            Err(error) => {
                refuse(&mut respond, StatusCode::BAD_REQUEST, &error.to_string());
                None
            }
        }
    }

    /// Answers 200. `server` is what to say about the workload that was reached.
    ///
    /// # Errors
    /// When the client has reset the stream or its tunnel is gone.
    pub fn accept(mut self, server: &Baggage) -> Result<HboneStream, StreamError> {
        let mut response = Response::new(());
        RequestHeaders {
            baggage: server.clone(),
            ..RequestHeaders::default()
        }
        .insert_into(response.headers_mut());
        let send = self.respond.send_response(response, false)?;
        let client = self.headers.baggage;
        Ok(HboneStream::new(
            send,
            self.receive,
            self.windows,
            client,
            None,
        ))
    }

    /// Answers with an error status: 400 (not for this node), 401 (denied), 503 (no upstream). The
    /// reason goes to our log only: who is denied need not learn by which policy.
    pub fn refuse(mut self, status: StatusCode, reason: &str) {
        refuse(&mut self.respond, status, reason);
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode, reason: &str) {
    debug!(%status, reason, "HBONE request refused");
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Err(error) = respond.send_response(response, true) {
        debug!(%error, "the client went away before it was refused");
    }
}

#[cfg(test)]
mod tests;
