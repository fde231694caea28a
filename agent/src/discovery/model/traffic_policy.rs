//! What a TrafficPolicy says, checked and within its bounds.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;

use super::{ObjectName, RouteKind};

/// A TrafficPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp`: of two for one target the older is in force.
    pub created: Option<Timestamp>,
    /// What it is for; at least one.
    pub targets: Vec<TrafficPolicyTarget>,
    /// How a service's endpoints are used. All defaults in a policy for routes.
    pub backend: Arc<BackendPolicy>,
    /// `None`: unlimited.
    pub rate_limit: Option<RateLimit>,
    /// `None`: no fault is injected.
    pub fault: Option<FaultPolicy>,
}

/// What a TrafficPolicy is for, in its own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrafficPolicyTarget {
    /// A Service.
    Service {
        /// Its name.
        name: Arc<str>,
        /// The name of one of its ports; `None`: all of them.
        port: Option<Arc<str>>,
    },
    /// A route, whatever its parents are.
    Route {
        /// HTTPRoute or GRPCRoute.
        kind: RouteKind,
        /// Its name.
        name: Arc<str>,
        /// The name of one of its rules; `None`: all of them.
        rule: Option<Arc<str>>,
    },
}

impl TrafficPolicyTarget {
    /// The port or rule that is named.
    #[must_use]
    pub fn section(&self) -> Option<&Arc<str>> {
        match self {
            Self::Service { port, .. } => port.as_ref(),
            Self::Route { rule, .. } => rule.as_ref(),
        }
    }

    /// Whether it is a route.
    #[must_use]
    pub fn is_route(&self) -> bool {
        matches!(self, Self::Route { .. })
    }
}

/// `Service cart`, `rule slow of HTTPRoute cart`.
impl fmt::Display for TrafficPolicyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, port: None } => write!(f, "Service {name}"),
            Self::Service {
                name,
                port: Some(port),
            } => write!(f, "port {port} of Service {name}"),
            Self::Route {
                kind,
                name,
                rule: None,
            } => write!(f, "{kind} {name}"),
            Self::Route {
                kind,
                name,
                rule: Some(rule),
            } => write!(f, "rule {rule} of {kind} {name}"),
        }
    }
}

/// How the endpoints of a service's port are used. The default is that of services without policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendPolicy {
    /// Who gets a request.
    pub load_balancing: LoadBalancing,
    /// How much may be under way.
    pub circuit_breaker: CircuitLimits,
    /// `None`: no endpoint is ejected.
    pub outlier_ejection: Option<OutlierEjection>,
    /// How many requests may be sent again.
    pub retry_budget: RetryBudgetPolicy,
    /// How connections to endpoints are used.
    pub connection_pool: ConnectionPool,
}

/// Who gets a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadBalancing {
    /// The way of choosing.
    pub strategy: Strategy,
    /// `None`: as the Service's `trafficDistribution` says.
    pub zone: Option<ZonePreference>,
    /// How long a new endpoint takes to get its full share; `None`: it has it at once. Never with
    /// a consistent hash.
    pub slow_start: Option<Duration>,
}

/// A way of choosing among endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Of two taken at random, the one with fewer requests under way from this waypoint.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// The same for the same key, whichever waypoint is asked, for as long as it is there.
    ConsistentHash(HashKey),
}

/// What a consistent hash is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value; requests without it go anywhere.
    Header(HeaderName),
    /// A cookie's value; who has none is given one.
    Cookie(HashCookie),
    /// The client's address.
    SourceAddress,
}

/// A cookie by which clients come back to their endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name: a token of RFC 6265.
    pub name: Arc<str>,
    /// Its Max-Age in whole seconds; `None`: until the client ends.
    pub ttl: Option<Duration>,
    /// Its Path.
    pub path: Arc<str>,
}

/// Whether endpoints of the waypoint's own zone go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZonePreference {
    /// They do while there are any that can be used.
    Prefer,
    /// All zones alike.
    Any,
}

/// How much may be under way from one waypoint to one port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Connections to endpoints. Default: 4,096.
    pub max_connections: u32,
    /// Requests that wait for a connection. Default: 4,096.
    pub max_pending_requests: u32,
    /// Requests, those that wait among them. Default: 16,384.
    pub max_requests: u32,
}

/// Far above what services with a latency of milliseconds get to, and low enough that one service that
/// hangs doesn't take all of a waypoint's memory.
impl Default for CircuitLimits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_pending_requests: 4_096,
            max_requests: 16_384,
        }
    }
}

/// When an endpoint is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierEjection {
    /// Errors in a row; `None`: they aren't counted.
    pub consecutive_errors: Option<u32>,
    /// How often success rates are compared, and an endpoint without errors is forgiven one ejection.
    pub interval: Duration,
    /// How long the first ejection takes; each further one as much longer, at most [`Self::LONGEST`].
    pub base_ejection: Duration,
    /// How many of the endpoints may be ejected at a time; one always may.
    pub max_ejected_percent: u32,
    /// `None`: success rates aren't compared.
    pub success_rate: Option<SuccessRate>,
}

impl OutlierEjection {
    /// No ejection takes longer, unless the first is to.
    pub const LONGEST: Duration = Duration::from_secs(300);
}

/// When an endpoint's success rate is too far below the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there have to be.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// Standard deviations below the mean, in thousandths.
    pub deviation_thousandths: u32,
}

/// How many requests may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudgetPolicy {
    /// Of the requests of the last ten seconds. Default: 20.
    pub percent: u32,
    /// In any case. Default: 10.
    pub min_per_second: u32,
}

impl Default for RetryBudgetPolicy {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
        }
    }
}

/// How connections to endpoints are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Requests after which a connection is closed; `None`: any number.
    pub max_requests_per_connection: Option<u32>,
    /// How long a connection stays open without a request. Default: 60 s.
    pub idle_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection, if the endpoint allows as many. Default: 100.
    pub max_streams_per_connection: u32,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_requests_per_connection: None,
            idle_timeout: Duration::from_secs(60),
            max_streams_per_connection: 100,
        }
    }
}

/// How many requests one waypoint passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// At least one.
    pub requests: u32,
    /// The time in which they may come.
    pub per: Duration,
    /// How many may come at once; at least one.
    pub burst: u32,
    /// Who shares the limit.
    pub by: RateLimitBy,
}

/// Who shares a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateLimitBy {
    /// All clients of a target.
    Target,
    /// The clients of one identity.
    ClientIdentity,
}

/// Faults that are put into requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPolicy {
    /// `None`: none is delayed.
    pub delay: Option<FaultDelay>,
    /// `None`: none is aborted.
    pub abort: Option<FaultAbort>,
}

/// Requests that have to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultDelay {
    /// For how long.
    pub duration: Duration,
    /// Which ones.
    pub applies: FaultShare,
}

/// Requests that are answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// gRPC status of gRPC requests, 1 to 16; `None`: what the HTTP status amounts to.
    pub grpc_status: Option<u8>,
    /// Which ones.
    pub applies: FaultShare,
}

/// Which requests a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultShare {
    /// 0 to 100.
    pub percentage: u32,
    /// Headers that a request must have, with these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
