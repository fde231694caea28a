//! The listener, its connections, and the way of a request through the server.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};
use tokio_rustls::TlsAcceptor;

use super::{
    RequestSeen,
    accounts::{OWN_AUDIENCE, User},
    admission,
    body::Outgoing,
    discovery, list,
    rbac::Attempt,
    refusal::Refusal,
    request::{Call, Target},
    resources::Resource,
    review,
    selector::Selector,
    state::{Shared, State},
    watch, write,
};

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The largest body of a request. Kubernetes': 3 MiB.
const LARGEST_BODY: usize = 3 << 20;

/// What a request is answered with.
enum Answer {
    Object(u16, Value),
    Stream(Outgoing),
}

/// Serves until it is dropped; then its connections end too, wherever they are.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, from) = accepted?;
                connections.spawn(connection(
                    acceptor.clone(), stream, from.ip().to_canonical(), Arc::clone(&shared),
                ));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, from: IpAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(|request| answer(Arc::clone(&shared), from, request));
    // It ends with an error if the client is gone, or a watch was cut: both are as they should be.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    shared: Arc<Shared>,
    from: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let media = header(&head.headers, header::CONTENT_TYPE);
    let bearer = header(&head.headers, header::AUTHORIZATION);
    let user = authenticate(&shared.state(), &bearer);
    let result = match (&user, Limited::new(body, LARGEST_BODY).collect().await) {
        (None, _) => Err(Refusal::unauthorized()),
        (Some(_), Err(error)) => Err(Refusal::plain(
            413,
            "RequestEntityTooLarge",
            format!("the body of the request can't be read: {error}"),
        )),
        (Some(user), Ok(body)) => Target::parse(&head.method, &path, &query).and_then(|target| {
            let asked = Asked {
                user,
                from,
                media: &media,
                body: &body.to_bytes(),
            };
            asked.answer(&shared, &target, &head.method, &path)
        }),
    };
    let status = match &result {
        Ok(Answer::Object(status, _)) => *status,
        Ok(Answer::Stream(_)) => 200,
        Err(refusal) => refusal.code(),
    };
    let mut state = shared.state();
    state.remember(RequestSeen {
        user: user.map_or_else(String::new, |user| user.name),
        method: head.method.to_string(),
        path: match query.as_str() {
            "" => path,
            query => format!("{path}?{query}"),
        },
        status,
    });
    Ok(respond(result, status, state.faults.delay))
}

/// Who asks, from where, and what.
struct Asked<'a> {
    user: &'a User,
    from: IpAddr,
    media: &'a str,
    body: &'a [u8],
}

impl Asked<'_> {
    fn answer(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        method: &Method,
        path: &str,
    ) -> Result<Answer, Refusal> {
        let call = match target {
            Target::Objects(call) => call,
            Target::Discovery if method == Method::GET => {
                return Ok(Answer::Object(200, discovery::tell(&shared.state(), path)?));
            }
            Target::Discovery => return Err(Refusal::method_not_allowed()),
        };
        let of = call.resource();
        {
            let state = shared.state();
            if state.is_hidden(call.index) {
                return Err(if of.is_custom() {
                    Refusal::PageNotFound
                } else {
                    Refusal::no_such_resource()
                });
            }
            authorize(&state, self.user, call, call.verb)?;
        }
        if of.kind == "TokenReview" {
            if call.verb != "create" {
                return Err(Refusal::method_not_allowed());
            }
            let review = self.object(of)?;
            return Ok(Answer::Object(201, review::review(&shared.state(), review)));
        }
        let written = match call.verb {
            "watch" => return watch::start(shared, call, self.from).map(Answer::Stream),
            "list" => list::list(&shared.state(), call).map(|list| (200, list)),
            "get" => list::one(&shared.state(), call).map(|object| (200, object)),
            _ => shared.change(|state| self.write(state, call)),
        };
        written.map(|(status, object)| Answer::Object(status, object))
    }

    /// The body's type without its parameters.
    fn media(&self) -> &str {
        self.media.split(';').next().unwrap_or_default().trim()
    }

    /// The body, which is JSON. Kubernetes would take protobuf too; clients fall back.
    fn object(&self, of: &Resource) -> Result<Value, Refusal> {
        match self.media() {
            "application/json" | "" => write::read(of, self.body),
            other => Err(Refusal::media_type(other, "application/json")),
        }
    }

    fn write(&self, state: &mut State, call: &Call) -> write::Written {
        let of = call.resource();
        match call.verb {
            "create" => {
                let object = self.object(of)?;
                admission::check(state, self.user, call, &object)?;
                write::create(state, call, object)
            }
            "update" => {
                let object = self.object(of)?;
                admission::check(state, self.user, call, &object)?;
                write::update(state, call, object)
            }
            "patch" => {
                let media = self.media();
                // JSON is YAML. What isn't either is refused below.
                let patch = serde_norway::from_slice(self.body).unwrap_or_default();
                admission::check(state, self.user, call, &patch)?;
                let applies = media == write::APPLY && !call.status;
                let creates = applies && !write::exists(state, call);
                if creates {
                    authorize(state, self.user, call, "create")?;
                }
                write::patch(state, call, media, self.body)
            }
            "delete" if self.body.is_empty() => write::delete(state, call, &Value::Null),
            "delete" => write::delete(state, call, &self.object(of)?),
            _ => write::delete_all(state, call),
        }
    }
}

/// The user that a request's header proves.
fn authenticate(state: &State, header: &str) -> Option<User> {
    let token = review::living(state, header.strip_prefix("Bearer ")?.trim()).ok()?;
    let ours = token.audiences.contains(OWN_AUDIENCE);
    ours.then(|| token.user.clone())
}

fn authorize(state: &State, user: &User, call: &Call, verb: &str) -> Result<(), Refusal> {
    let Some(rights) = state.rights() else {
        return Ok(());
    };
    let of = call.resource();
    let below = if call.status { "/status" } else { "" };
    let resource = format!("{}{below}", of.plural);
    // A list of one name counts as that one. A namespace is in itself.
    let selector = Selector::parse(&call.query, of).unwrap_or_default();
    let is_list = matches!(verb, "list" | "watch" | "deletecollection");
    let name = match selector.name() {
        Some(name) if is_list && call.name.is_empty() => name,
        _ => &call.name,
    };
    let namespace = match of.kind {
        "Namespace" => name,
        _ => &call.namespace,
    };
    let attempt = Attempt {
        verb,
        group: of.group,
        resource: &resource,
        namespace,
        name,
    };
    if rights.allows(user, attempt) {
        return Ok(());
    }
    let object = match call.name.as_str() {
        "" => of.qualified(),
        name => format!("{} {name:?}", of.qualified()),
    };
    let place = match call.namespace.as_str() {
        "" => "at the cluster scope".into(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let message = format!(
        "{object} is forbidden: User {:?} cannot {verb} resource {resource:?} in API group {:?} \
         {place}",
        user.name, of.group
    );
    Err(Refusal::about(403, "Forbidden", message, of, &call.name))
}

fn respond(result: Result<Answer, Refusal>, status: u16, delay: Duration) -> Response<Outgoing> {
    let whole = |text: String| {
        let bytes = Bytes::from(text);
        if delay.is_zero() {
            Outgoing::Whole(bytes)
        } else {
            Outgoing::slowly(bytes, delay)
        }
    };
    let (media, body) = match result {
        Ok(Answer::Object(_, object)) => ("application/json", whole(object.to_string())),
        Ok(Answer::Stream(body)) => ("application/json", body),
        Err(Refusal::PageNotFound) => (
            "text/plain; charset=utf-8",
            whole("404 page not found\n".into()),
        ),
        Err(refusal) => ("application/json", whole(refusal.status().to_string())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let media = http::HeaderValue::from_static(media);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn header(headers: &http::HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
