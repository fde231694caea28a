//! Routes of the Gateway API that have Services for parents: what they match, and what becomes of a
//! request that does.

mod filters;
mod matching;
mod table;

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;
use k8s_openapi::jiff::Timestamp;

use super::ObjectName;

pub use self::{
    filters::{
        AllowedOrigins, Cors, Filters, Fraction, HeaderChange, Listed, Mirror, Origin, PathChange,
        Redirect, Rewrite,
    },
    matching::{PathMatch, Pattern, PatternError, RequestMatch, TextMatch, is_grpc},
    table::{Attached, Found, RouteTable},
};

/// Which kind of route an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
}

/// `HTTPRoute`, `GRPCRoute`.
impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        })
    }
}

/// A checked route, as far as it is for Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// HTTPRoute or GRPCRoute.
    pub kind: RouteKind,
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp`: of two routes that match alike, the older goes first.
    pub created: Option<Timestamp>,
    /// Its parents that are Services.
    pub parents: Vec<RouteParent>,
    /// Its rules, in their order.
    pub rules: Vec<RouteEntry>,
}

/// A Service that a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteParent {
    /// Place in `spec.parentRefs`, from 0.
    pub index: usize,
    /// The Service.
    pub service: ObjectName,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<Arc<str>>,
}

/// A rule with the requests that it is for: those that any of `matches` matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Never empty.
    pub matches: Vec<RequestMatch>,
    /// What becomes of them.
    pub rule: Arc<RouteRule>,
}

/// What becomes of requests that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// The route.
    pub route: ObjectName,
    /// Its kind.
    pub kind: RouteKind,
    /// `spec.rules[].name`, by which policies name it.
    pub name: Option<Arc<str>>,
    /// Place among the route's rules, from 0.
    pub index: usize,
    /// What is done to each of them.
    pub filters: Filters,
    /// Where they go, in shares.
    pub backends: Vec<Backend>,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// When they are tried again.
    pub retry: Option<Retry>,
}

impl RouteRule {
    /// The backend of one request. `random` is to be equally likely over all of its range. `None`: there is
    /// none, or all weights are 0, and the answer is 500 (gRPC: UNAVAILABLE).
    #[must_use]
    pub fn backend(&self, random: u32) -> Option<&Backend> {
        let total: u64 = self.backends.iter().map(|it| u64::from(it.weight)).sum();
        // Below `total`, as `random` is below 2^32.
        let mut place = (u64::from(random) * total) >> u32::BITS;
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let is_it = place < weight;
            place = place.saturating_sub(weight);
            is_it
        })
    }
}

/// Where a share of the requests goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where to.
    pub target: BackendTarget,
    /// Its share of the sum of all weights, 0 to 1,000,000.
    pub weight: u32,
    /// What is done to these alone, after the rule's own filters.
    pub filters: Filters,
}

/// What a route refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTarget {
    /// A port of a Service.
    Service {
        /// The Service.
        name: ObjectName,
        /// Its port.
        port: u16,
    },
    /// Nothing that requests may be sent to: they are answered with 500 (gRPC: UNAVAILABLE).
    Invalid(InvalidBackend),
}

/// Why requests can't be sent to what a route refers to, and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackend {
    /// It isn't a Service.
    #[error("{kind} is not supported: refer to a Service")]
    Kind {
        /// What it is, with its group.
        kind: String,
    },
    /// There is no such Service.
    #[error("there is no Service {service}: create it, or refer to another")]
    NoService {
        /// Its name.
        service: ObjectName,
    },
    /// The Service has no such port.
    #[error("Service {service} has no TCP port {port}: refer to one that it has")]
    NoPort {
        /// Its name.
        service: ObjectName,
        /// The port.
        port: u16,
    },
    /// It is in another namespace, which doesn't allow it.
    #[error(
        "Service {service} is in another namespace: have a ReferenceGrant there allow {from}s of \
         namespace {namespace} to refer to it"
    )]
    NotPermitted {
        /// Its name.
        service: ObjectName,
        /// What refers to it.
        from: RouteKind,
        /// From where.
        namespace: Arc<str>,
    },
    /// A filter of the rule or of the backend does something that isn't known here, and the request
    /// must not go on without.
    #[error("filter {filter} is not supported: remove it")]
    Filter {
        /// Which it is.
        filter: String,
    },
}

/// How long requests may take. `None` where nothing limits that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// All of it, retries included, until the whole answer is there.
    pub request: Option<Duration>,
    /// Each try.
    pub backend_request: Option<Duration>,
}

/// When a request is tried again: if no backend was reached, and if the answer is one of `codes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Statuses, sorted.
    pub codes: Vec<StatusCode>,
    /// Tries after the first, 0 to 10.
    pub attempts: u32,
    /// From one try to the next, at least.
    pub backoff: Duration,
}
