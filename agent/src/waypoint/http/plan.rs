//! Where a request goes, and what is done to it. Pure.

use std::{net::SocketAddr, sync::Arc};

use http::{StatusCode, request};

use super::{super::target::Asked, reply::Reply, upstream::Version};
use crate::{
    discovery::{
        model::{
            AppProtocol, BackendTarget, Filters, Found, ObjectName, RouteKind, RouteRule, Service,
        },
        store::Snapshot,
    },
    telemetry::RequestFlags,
};

/// What was decided for a request.
pub(super) struct Plan {
    /// The rule of a route that matches it, if the service has routes.
    pub(super) matched: Option<Matched>,
    /// Where it goes.
    pub(super) destination: Destination,
}

/// A rule, and the one of its backends that the request goes to.
pub(super) struct Matched {
    pub(super) rule: Arc<RouteRule>,
    /// The prefix of the path that matched.
    pub(super) prefix: Box<str>,
    /// Its place among the rule's.
    backend: usize,
}

/// Where a request goes.
pub(super) enum Destination {
    /// To an endpoint for a service's port.
    Service(Arc<Service>, u16),
    /// To a workload that was asked for by its own address.
    Workload(SocketAddr),
    /// Nowhere: the rule's filters answer it, or nobody does.
    Nowhere(Reply),
}

impl Destination {
    /// What is spoken to the server: what its Service says, else what the client speaks.
    pub(super) fn version(&self, spoken: http::Version) -> Version {
        let declared = match self {
            Self::Service(service, port) => service.protocol(*port),
            Self::Workload(_) | Self::Nowhere(_) => AppProtocol::Unknown,
        };
        match (declared, spoken) {
            (AppProtocol::Http2, _) | (_, http::Version::HTTP_2) => Version::Http2,
            _ => Version::Http1,
        }
    }
}

impl Matched {
    /// What is done to the request: the rule's filters, and then the backend's own, if it has any.
    pub(super) fn filters(&self) -> impl DoubleEndedIterator<Item = &Filters> {
        let backend = self.rule.backends.get(self.backend);
        let of_backend = backend.map(|backend| &backend.filters);
        [Some(&self.rule.filters), of_backend].into_iter().flatten()
    }
}

/// Finds a request's rule and destination. `random` is any random number.
///
/// # Errors
/// The answer, if there is none.
pub(super) fn plan(
    snapshot: &Snapshot,
    asked: &Asked,
    client_namespace: &str,
    request: &request::Parts,
    path: &str,
    random: u32,
) -> Result<Plan, Reply> {
    let (service, port) = match asked {
        Asked::Service(service, port) => (&service.name, *port),
        // Routes are for services.
        Asked::Workload(address) => {
            return Ok(Plan {
                matched: None,
                destination: Destination::Workload(*address),
            });
        }
    };
    let routes = snapshot.routes_of(service);
    let found = routes.map(|it| it.find(port, client_namespace, request, path));
    let (rule, prefix) = match found {
        None | Some(Found::NoRoutes) => {
            return Ok(Plan {
                matched: None,
                destination: of_service(snapshot, service, port),
            });
        }
        Some(Found::NoMatch) => {
            let text = "no route of the service matches";
            let reply = Reply::new(StatusCode::NOT_FOUND, text);
            return Err(reply.flagged(RequestFlags::NO_ROUTE));
        }
        Some(Found::Rule { rule, prefix }) => (rule, prefix),
    };
    let chosen = rule.backend(random);
    let index =
        chosen.and_then(|chosen| rule.backends.iter().position(|it| std::ptr::eq(it, chosen)));
    let destination = match chosen.map(|backend| &backend.target) {
        Some(BackendTarget::Service { name, port }) => of_service(snapshot, name, *port),
        Some(BackendTarget::Invalid(reason)) => {
            Destination::Nowhere(unusable(rule, &reason.to_string()))
        }
        None => Destination::Nowhere(unusable(rule, "the rule has no backend with a weight")),
    };
    Ok(Plan {
        matched: Some(Matched {
            rule: rule.clone(),
            prefix: prefix.into(),
            // One past the last, if there is none.
            backend: index.unwrap_or(rule.backends.len()),
        }),
        destination,
    })
}

fn of_service(snapshot: &Snapshot, name: &ObjectName, port: u16) -> Destination {
    match snapshot.service(name) {
        Some(service) => Destination::Service(service.clone(), port),
        None => {
            let text = format!("service {name} is gone");
            let reply = Reply::new(StatusCode::SERVICE_UNAVAILABLE, text);
            Destination::Nowhere(reply.flagged(RequestFlags::NO_HEALTHY_UPSTREAM))
        }
    }
}

/// As the specification has it answered: 500, and UNAVAILABLE for gRPC.
fn unusable(rule: &RouteRule, reason: &str) -> Reply {
    let status = match rule.kind {
        RouteKind::Http => StatusCode::INTERNAL_SERVER_ERROR,
        RouteKind::Grpc => StatusCode::SERVICE_UNAVAILABLE,
    };
    let what = format!(
        "{} {} rules[{}]: {reason}",
        rule.kind, rule.route, rule.index
    );
    Reply::new(status, "the route has no usable backend")
        .flagged(RequestFlags::NO_ROUTE)
        .because(what)
}
