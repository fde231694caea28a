//! One request and its response.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONNECTION, TRANSFER_ENCODING},
    request, response,
};
use hyper::body::Incoming;

use super::{
    super::{filters, stream::Client},
    body::{ResponseBody, Source},
    forward::Forward,
    headers::{self, ClientNames},
    mirror,
    plan::{Destination, Matched, Plan, plan},
    reply::Reply,
    under_way::{self, Head},
    upgrade::Upgrade,
};
use crate::{
    discovery::store::Snapshot,
    policy::{RequestTarget, Token},
    proxy::connections::ConnectionGuard,
    telemetry::{
        RequestDescription, RequestFlags, RequestReport, ResponseOutcome,
        requests::{GrpcStatus, RequestHead, RequestProtocol},
    },
    waypoint::filters::{CorsGrant, CrossOrigin},
};

/// Answers one request.
pub(super) async fn serve(
    client: Arc<Client>,
    guard: Arc<ConnectionGuard>,
    names: Arc<ClientNames>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let is_http1 = request.version() <= http::Version::HTTP_11;
    let (parts, body) = request.into_parts();
    let head = RequestHead::of(&parts);
    let is_grpc = head.protocol == RequestProtocol::Grpc;
    let waypoint = client.waypoint.clone();
    let description = RequestDescription {
        source: client.source.clone(),
        source_identity: Some(client.ends.client.clone()),
        source_address: client.source_address,
        service: client.asked.service().cloned(),
        waypoint: waypoint.gateway.clone(),
        head,
        trace: waypoint.tracer.begin(&parts.headers),
    };
    let exchange = Exchange {
        report: Some(RequestReport::open(&waypoint.core.metrics, description)),
        snapshot: waypoint.core.store.snapshot(),
        client,
        guard,
        names,
        token: None,
    };
    let mut response = exchange.answer(parts, body, is_grpc).await;
    // Its version is this connection's, whatever the server speaks (RFC 9110, 2.5).
    *response.version_mut() = http::Version::HTTP_11;
    let is_closing = is_http1 && waypoint.core.drain.is_cancelled();
    if is_closing && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// One request, on what was known when it came.
pub(super) struct Exchange {
    pub(super) client: Arc<Client>,
    pub(super) guard: Arc<ConnectionGuard>,
    /// Of the client, for the server.
    names: Arc<ClientNames>,
    pub(super) snapshot: Arc<Snapshot>,
    /// What the client has proven to be by a token.
    pub(super) token: Option<Arc<Token>>,
    /// Until somebody else is to finish it.
    pub(super) report: Option<RequestReport>,
}

impl Exchange {
    async fn answer(
        mut self,
        parts: request::Parts,
        body: Incoming,
        is_grpc: bool,
    ) -> Response<ResponseBody> {
        let answered = self.pass(parts, body).await;
        let (response, error, flags) = match answered {
            Ok(response) => (response, None, None),
            Err(reply) => {
                let (reason, flags) = (reply.reason().to_owned(), reply.flags);
                (reply.response(is_grpc), Some(reason), Some(flags))
            }
        };
        if let Some(report) = self.report.take() {
            report.finish(ResponseOutcome {
                status: Some(response.status()),
                grpc_status: GrpcStatus::of(response.headers()),
                flags: flags.unwrap_or_default(),
                error: error.as_ref().map(|it| it as _),
            });
        }
        response
    }

    async fn pass(
        &mut self,
        mut parts: request::Parts,
        body: Incoming,
    ) -> Result<Response<ResponseBody>, Reply> {
        // What is decided upon is what is sent on.
        let upgrade = Upgrade::of(&mut parts);
        headers::remove_hop_by_hop(&mut parts.headers);
        headers::name_host(&mut parts, self.client.asked.address());
        let path = match RequestTarget::of(&parts) {
            Ok(target) => target.path.into_owned(),
            Err(error) => {
                let reply = Reply::new(StatusCode::BAD_REQUEST, error.to_string());
                return Err(reply.flagged(RequestFlags::DOWNSTREAM_PROTOCOL_ERROR));
            }
        };
        if let Err(error) = headers::set_path(&mut parts, &path) {
            let reply = Reply::new(StatusCode::URI_TOO_LONG, error.to_string());
            return Err(reply.flagged(RequestFlags::DOWNSTREAM_PROTOCOL_ERROR));
        }
        let protocol = parts.extensions.get::<hyper::ext::Protocol>();
        if protocol.is_some_and(|it| headers::hides_requests(it.as_str())) {
            let reply = Reply::new(StatusCode::NOT_IMPLEMENTED, "no such protocol here");
            return Err(reply.flagged(RequestFlags::DOWNSTREAM_PROTOCOL_ERROR));
        }
        Box::pin(self.admit(&mut parts, &path)).await?;
        let Plan {
            matched,
            destination,
        } = plan(
            &self.snapshot,
            &self.client.asked,
            self.client.ends.client.namespace(),
            &parts,
            &path,
            rand::random(),
        )?;
        if let (Some(matched), Some(report)) = (&matched, &mut self.report) {
            report.route(&matched.rule.route);
        }

        Box::pin(self.limit(matched.as_ref(), &parts.headers)).await?;

        // What the rule answers itself.
        let mut grant = None;
        if let Some(matched) = &matched {
            match answer_of_rule(matched, &parts, self.client.asked.address().port(), &path)? {
                Answer::Whole(parts) => {
                    return Ok(Response::from_parts(
                        *parts,
                        ResponseBody::own(Bytes::new()),
                    ));
                }
                Answer::Grant(given) => grant = given,
            }
        }

        // What goes on. What it was decided by stays here.
        let asked = Arc::new(Head {
            parts: under_way::copy(&parts),
            path,
        });
        let path = &asked.path;
        let version = destination.version(parts.version);
        if let Some(matched) = &matched {
            for filters in matched.filters() {
                filters::change_request(filters, &mut parts, path, &matched.prefix)
                    .map_err(|error| Reply::new(StatusCode::BAD_REQUEST, error.to_string()))?;
            }
        }
        self.names.write(&mut parts.headers);
        if let Some(report) = &self.report {
            report.trace().insert_into(&mut parts.headers);
        }
        headers::write_for(&mut parts, version.is_http2());
        let sizes = self.report.as_ref().map(|report| report.sizes().clone());
        let source = Source::new(body, &sizes.unwrap_or_default());
        if !version.is_http2() && upgrade.is_none() && source.has_unknown_length() {
            // A GET may have a body too, and its server must be told.
            let chunked = http::HeaderValue::from_static("chunked");
            parts.headers.insert(TRANSFER_ENCODING, chunked);
        }
        if let (Some(matched), None) = (&matched, &upgrade) {
            mirror::send(self, matched, &parts, &source, version);
        }
        if let Some(upgrade) = &upgrade {
            upgrade.ask(&mut parts.headers);
        }
        let forward = Forward {
            exchange: self,
            asked: &asked,
            matched: matched.as_ref(),
            version,
            source,
            is_idempotent: is_idempotent(&parts.method),
            upgrade,
        };
        let mut response = match destination {
            Destination::Nowhere(reply) => return Err(reply),
            Destination::Workload(address) => forward.ask_workload(parts, address).await?,
            Destination::Service(service, port) => {
                forward.ask_service(parts, &service, port).await?
            }
        };
        if let Some(matched) = &matched {
            let (mut parts, body) = response.into_parts();
            for filters in matched.filters().rev() {
                filters::change_response(filters, &mut parts);
            }
            if let Some(grant) = grant {
                grant.apply(&mut parts);
            }
            response = Response::from_parts(parts, body);
        }
        Ok(response)
    }
}

/// What a rule says to a request by itself.
enum Answer {
    /// All there is to be said.
    Whole(Box<response::Parts>),
    /// What is to be added to what the backend says.
    Grant(Option<CorsGrant>),
}

fn answer_of_rule(
    matched: &Matched,
    request: &request::Parts,
    port: u16,
    path: &str,
) -> Result<Answer, Reply> {
    let mut grant = None;
    for filters in matched.filters() {
        if let Some(cors) = &filters.cors {
            match filters::cross_origin(cors, request) {
                CrossOrigin::No => {}
                CrossOrigin::Preflight(response) => return Ok(Answer::Whole(response)),
                CrossOrigin::Request(given) => grant = Some(given),
            }
        }
        if let Some(redirect) = &filters.redirect {
            let response = filters::redirect(redirect, request, port, path, &matched.prefix);
            let bad =
                |error: filters::Error| Reply::new(StatusCode::BAD_REQUEST, error.to_string());
            return Ok(Answer::Whole(Box::new(response.map_err(bad)?)));
        }
    }
    Ok(Answer::Grant(grant))
}

/// Whether a request may be sent again without more (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
