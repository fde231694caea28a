//! What each endpoint answers.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use serde::Serialize;
use tokio::{net::TcpListener, task};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, PlaintextView, Readiness, guard, observe, page,
    server::{Body, serve, whole},
    status::StatusView,
    views::{CertificateView, PolicyView, ProblemView, ServiceView, WorkloadView},
};
use crate::{
    discovery::store::Snapshot,
    explain::{NodeFacts, Question, explain},
    proxy::connections::ConnectionView,
    telemetry::{Metrics, logging::LogControl, metrics::Page},
};

pub(super) type Answer = Response<Full<Bytes>>;

/// What the admin endpoint shows. Implemented where everything is wired together.
pub trait AdminSource: Send + Sync + 'static {
    /// How the agent is; `None` of a waypoint.
    fn status(&self) -> Option<StatusView>;
    /// What is known now.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// The open connections.
    fn connections(&self) -> Vec<ConnectionView>;
    /// The certificates in use, without their keys.
    fn certificates(&self) -> Vec<CertificateView>;
    /// The objects that can't be used as they are.
    fn problems(&self) -> Vec<ProblemView>;
    /// Who speaks plaintext to the node's pods; `None` of a waypoint.
    fn plaintext(&self) -> Option<PlaintextView>;
    /// What the node alone knows, for explanations; `None` of a waypoint.
    fn facts(&self) -> Option<&dyn NodeFacts>;
    /// What is counted, and told to those who observe.
    fn metrics(&self) -> &Arc<Metrics>;
}

/// Why an endpoint can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It changes the agent and asks for no credentials.
    #[error("the admin endpoint must listen on loopback, not on {0}")]
    NotLoopback(SocketAddr),
    /// The listener is of no use.
    #[error("the admin endpoint's listener: {0}")]
    Listener(#[from] io::Error),
}

/// Serves `/metrics` until cancelled.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<dyn Page>,
    limits: Limits,
    cancellation: CancellationToken,
) {
    let handle = move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move {
            whole(match (request.method(), request.uri().path()) {
                (&Method::GET, "/metrics") => metrics_page(metrics).await,
                (_, "/metrics") => only("GET"),
                _ => not_found("/metrics"),
            })
        }
    };
    serve(listener, limits, cancellation, handle).await;
}

/// Serves `/healthz/ready` until cancelled: 200, or 503 and the conditions that don't hold.
pub async fn serve_readiness(
    listener: TcpListener,
    readiness: Readiness,
    limits: Limits,
    cancellation: CancellationToken,
) {
    let handle = move |request: Request<Incoming>| {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz/ready") => match readiness.missing() {
                missing if missing.is_empty() => text(StatusCode::OK, "ready\n".into()),
                missing => {
                    let body = format!("not ready: {}\n", missing.join(", "));
                    text(StatusCode::SERVICE_UNAVAILABLE, body)
                }
            },
            (_, "/healthz/ready") => only("GET, HEAD"),
            _ => not_found("/healthz/ready"),
        };
        std::future::ready(whole(answer))
    };
    serve(listener, limits, cancellation, handle).await;
}

/// Serves the operator's view until cancelled. Loopback only: whoever reaches it may change the
/// log level.
///
/// # Errors
/// [`AdminError`]: the listener isn't on loopback.
pub async fn serve_admin(
    listener: TcpListener,
    source: Arc<dyn AdminSource>,
    log: LogControl,
    limits: Limits,
    cancellation: CancellationToken,
) -> Result<(), AdminError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback(address));
    }
    let stop = cancellation.clone();
    let handle = move |request: Request<Incoming>| {
        let (source, log, stop) = (source.clone(), log.clone(), stop.clone());
        async move { guard::protected(operators_answer(request, source, log, stop).await) }
    };
    serve(listener, limits, cancellation, handle).await;
    Ok(())
}

async fn operators_answer(
    request: Request<Incoming>,
    source: Arc<dyn AdminSource>,
    log: LogControl,
    stop: CancellationToken,
) -> Response<Body> {
    if let Err(refusal) = guard::check(request.headers()) {
        return whole(text(StatusCode::FORBIDDEN, format!("{refusal}\n")));
    }
    let query = request.uri().query();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/observe") => return observe::answer(query, source.metrics(), stop),
        (&Method::GET, "/explain") => return whole(explanation(query, &*source).await),
        _ => {}
    }
    // Lists grow with the cluster, and are made without waiting for anything.
    let answer = task::spawn_blocking(move || admin_page(&request, &*source, &log));
    whole(answer.await.unwrap_or_else(|error| fault(&error)))
}

fn admin_page(request: &Request<Incoming>, source: &dyn AdminSource, log: &LogControl) -> Answer {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/") => page::show(),
        (&Method::GET, "/graph") => json(&source.metrics().graph()),
        (&Method::GET, "/status") => json(&source.status()),
        (&Method::GET, "/connections") => json(&source.connections()),
        (&Method::GET, "/workloads") => {
            let snapshot = source.snapshot();
            let views = snapshot
                .workloads()
                .map(|workload| WorkloadView::of(workload, &snapshot));
            json(&sorted(views, |view| &view.name))
        }
        (&Method::GET, "/services") => {
            let snapshot = source.snapshot();
            let views = snapshot
                .services()
                .map(|service| ServiceView::of(service, &snapshot));
            json(&sorted(views, |view| &view.name))
        }
        (&Method::GET, "/policies") => {
            let snapshot = source.snapshot();
            let policies = snapshot.policies();
            let views = policies
                .authorizations()
                .map(|policy| PolicyView::of_authorization(policy, policies))
                .chain(
                    policies
                        .peer_authentications()
                        .map(|policy| PolicyView::of_peer_authentication(policy, policies)),
                )
                .chain(
                    policies
                        .request_authentications()
                        .map(|policy| PolicyView::of_request_authentication(policy, policies)),
                );
            json(&sorted(views, |view| &view.name))
        }
        (&Method::GET, "/certificates") => json(&source.certificates()),
        (&Method::GET, "/problems") => json(&source.problems()),
        (&Method::GET, "/plaintext") => json(&source.plaintext()),
        (&Method::GET, "/logging") => match log.filter() {
            Ok(filter) => text(StatusCode::OK, format!("{filter}\n")),
            Err(error) => fault(&error),
        },
        (&Method::PUT, "/logging") => set_level(request.uri().query(), log),
        (_, "/logging") => only("GET, PUT"),
        (
            _,
            "/status" | "/connections" | "/workloads" | "/services" | "/policies" | "/certificates"
            | "/problems" | "/plaintext" | "/explain" | "/" | "/graph" | "/observe",
        ) => only("GET"),
        _ => not_found(
            "/ (a page for browsers), /status, /connections, /workloads, /services, /policies, \
             /certificates, /problems, /plaintext, /explain?source=&destination=, /graph, /observe, \
             /logging?level=",
        ),
    }
}

async fn explanation(query: Option<&str>, source: &dyn AdminSource) -> Answer {
    let query = query.unwrap_or_default().as_bytes();
    let said = |key| {
        let mut pairs = form_urlencoded::parse(query);
        pairs.find_map(|(name, value)| (name == key).then_some(value))
    };
    let (Some(from), Some(to)) = (said("source"), said("destination")) else {
        let usage = "say /explain?source=shop/web&destination=shop/till:80\n";
        return text(StatusCode::BAD_REQUEST, usage.into());
    };
    let Some(facts) = source.facts() else {
        return not_found("explanations at the admin port of a node's agent");
    };
    let snapshot = source.snapshot();
    match Question::parse(&snapshot, facts.node(), &from, &to) {
        Ok(question) => json(&explain(&snapshot, facts, &question).await),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn set_level(query: Option<&str>, log: &LogControl) -> Answer {
    // Filters need no escaping in a query: they have neither `&` nor `%` nor spaces.
    let level = query.and_then(|query| query.strip_prefix("level="));
    let Some(level) = level else {
        return text(StatusCode::BAD_REQUEST, "say /logging?level=debug\n".into());
    };
    match log.apply(level) {
        Ok(()) => {
            tracing::info!(level, "log level changed");
            text(StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn metrics_page(metrics: Arc<dyn Page>) -> Answer {
    let page = match task::spawn_blocking(move || metrics.encode()).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return fault(&error),
        Err(error) => return fault(&error),
    };
    answer(StatusCode::OK, prometheus::TEXT_FORMAT, page)
}

fn sorted<T, K: Ord>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> &K) -> Vec<T> {
    let mut items: Vec<_> = items.collect();
    items.sort_by(|a, b| key(a).cmp(key(b)));
    items
}

fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => fault(&error),
    }
}

fn only(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {methods}\n"));
    let methods = HeaderValue::from_static(methods);
    answer.headers_mut().insert(header::ALLOW, methods);
    answer
}

fn not_found(paths: &str) -> Answer {
    text(
        StatusCode::NOT_FOUND,
        format!("not found; there is: {paths}\n"),
    )
}

fn fault(error: &dyn std::error::Error) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

pub(super) fn text(status: StatusCode, body: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
