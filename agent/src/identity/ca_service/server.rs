//! Connections of the authority's server: TLS, HTTP/2, and their bounds.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

use super::{
    CallerAuthenticator, CertificateService, NodeAuthorizer, PodReports, reports::ReportService,
};
use crate::{
    identity::{
        authority::{self, CertificateAuthority},
        pod_report::REPORT_PODS,
        tls,
        wire::{CREATE_CERTIFICATE, MAX_MESSAGE},
    },
    listening::{self, Place, Places},
    telemetry::control::Tally,
};

/// Beyond it a newer connection takes the place of an older one.
const MAX_CONNECTIONS: usize = 1024;
/// Calls at one time on one connection.
const MAX_STREAMS: u32 = 16;
/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take, the token's check included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is told to go away after this long, so that idle ones can't use up all there are.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// How long calls may finish after that, or when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// A failed renewal of the server's own certificate is tried again after this long.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// How the server shows itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// DNS names and addresses in its certificate. Default
    /// `ambit-control.ambit-system.svc`, `localhost`.
    pub server_names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server_names: ["ambit-control.ambit-system.svc", "localhost"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// What the server works with.
pub struct Parts {
    /// Signs.
    pub authority: Arc<CertificateAuthority>,
    /// Knows who calls.
    pub authenticator: Arc<dyn CallerAuthenticator>,
    /// Knows what runs where.
    pub authorizer: Arc<dyn NodeAuthorizer>,
    /// Takes reports of pods; without it they are a call that isn't known.
    pub reports: Option<Arc<dyn PodReports>>,
    /// Counts certificates.
    pub counts: Tally,
}

/// Answers calls.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) certificates: CertificateService,
    pub(super) reports: Option<ReportService>,
}

/// Serves until cancelled, then lets calls finish for some seconds. Rotates the authority's roots
/// and renews the server's own certificate meanwhile.
///
/// # Errors
/// If the server's own first certificate can't be made.
pub async fn serve(
    settings: Settings,
    parts: Parts,
    listener: TcpListener,
    cancellation: CancellationToken,
) -> Result<(), authority::Error> {
    let authority = parts.authority;
    let own = Arc::new(OwnCertificate::default());
    let renewal = own.renew(&authority, &settings.server_names)?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(Arc::clone(&own))?));
    let authenticator = parts.authenticator;
    let services = Services {
        reports: parts.reports.map(|reports| ReportService {
            authenticator: Arc::clone(&authenticator),
            reports,
        }),
        certificates: CertificateService {
            authority: Arc::clone(&authority),
            authenticator,
            authorizer: parts.authorizer,
            counts: parts.counts,
        },
    };

    // The guard ends what the server started even if its future is dropped.
    let stop = cancellation.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&authority).run(stop.clone()));
    let names: Arc<[String]> = settings.server_names.into();
    tasks.spawn(keep_certificate(
        own.clone(),
        authority.clone(),
        names.clone(),
        renewal,
        stop.clone(),
    ));
    let places = Places::new(MAX_CONNECTIONS);
    loop {
        let (stream, place) = tokio::select! {
            () = cancellation.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        own.keep_current(&authority, &names);
        let (acceptor, services, stop) = (acceptor.clone(), services.clone(), stop.clone());
        tasks.spawn(async move {
            place.begin();
            let connection = connection(stream, acceptor, services, stop, &place);
            tokio::select! {
                () = place.lost() => {}
                () = connection => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// The next connection, and its place.
async fn accept(listener: &TcpListener, places: &Arc<Places>) -> (TcpStream, Arc<Place>) {
    loop {
        let (stream, client) = listening::accept(listener).await;
        if let Some(place) = places.take(client.ip()).await {
            return (stream, Arc::new(place));
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    services: Services,
    stop: CancellationToken,
    place: &Arc<Place>,
) {
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(64 * 1024)
        .initial_stream_window_size(MAX_WINDOW)
        .initial_connection_window_size(MAX_WINDOW * 2)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(10));
    let asking = Arc::clone(place);
    let answer = service_fn(move |request| {
        asking.has_asked();
        answer(services.clone(), request)
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => drain(connection).await,
        () = sleep(MAX_CONNECTION_AGE) => drain(connection).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// A whole request fits in.
const MAX_WINDOW: u32 = 64 * 1024;

type Connection<S> =
    http2::Connection<TokioIo<tokio_rustls::server::TlsStream<TcpStream>>, S, TokioExecutor>;

async fn drain<S>(mut connection: std::pin::Pin<&mut Connection<S>>) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    connection.as_mut().graceful_shutdown();
    timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

pub(super) async fn answer<B>(
    services: Services,
    request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let call = async {
        match (request.uri().path(), services.reports) {
            (CREATE_CERTIFICATE, _) => grpc().unary(services.certificates, request).await,
            (REPORT_PODS, Some(reports)) => grpc().unary(reports, request).await,
            _ => Status::unimplemented("this call isn't served here").into_http(),
        }
    };
    Ok(timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Status::deadline_exceeded("the call took too long").into_http()))
}

fn grpc<Q, A>() -> Grpc<ProstCodec<A, Q>>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    Grpc::new(ProstCodec::default())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn server_config(own: Arc<OwnCertificate>) -> Result<ServerConfig, authority::Error> {
    let mut config = ServerConfig::builder_with_provider(tls::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| authority::Error::Settings(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificate that the server shows, replaced while it serves.
#[derive(Debug, Default)]
struct OwnCertificate(ArcSwapOption<Own>);

#[derive(Debug)]
struct Own {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl OwnCertificate {
    /// Makes a new one, and says when the next is due: at half its life.
    fn renew(
        &self,
        authority: &CertificateAuthority,
        names: &[String],
    ) -> Result<Duration, authority::Error> {
        let now = SystemTime::now();
        let made = authority.sign_server(names, now)?;
        let key = made
            .key
            .signing_key()
            .map_err(|error| authority::Error::Settings(error.to_string()))?;
        let certified = Arc::new(CertifiedKey::new(made.chain, key));
        let not_after = made.not_after;
        self.0.store(Some(Arc::new(Own {
            certified,
            not_after,
        })));
        let life = made.not_after.duration_since(now).unwrap_or_default();
        Ok((life / 2).max(Duration::from_millis(500)))
    }
}

impl OwnCertificate {
    /// Renews it where the clock was set beyond its end, of which no timer knows.
    fn keep_current(&self, authority: &CertificateAuthority, names: &[String]) {
        let has_expired = |own: &Arc<Own>| own.not_after <= SystemTime::now();
        if self.0.load().as_ref().is_some_and(has_expired)
            && let Err(error) = self.renew(authority, names)
        {
            tracing::error!(%error, "cannot renew the server's own certificate");
        }
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().as_ref()?.certified.clone())
    }
}

async fn keep_certificate(
    own: Arc<OwnCertificate>,
    authority: Arc<CertificateAuthority>,
    names: Arc<[String]>,
    mut pause: Duration,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = own.renew(&authority, &names).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot renew the server's own certificate");
            RENEWAL_PAUSE
        });
    }
}
