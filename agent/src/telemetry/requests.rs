//! The report of one request through a waypoint, which feeds metrics, access log and traces.

mod access_log;
mod flags;
mod flow;
mod head;
mod histogram;
mod metrics;
mod sizes;
mod span;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;

pub(super) use self::metrics::{RequestLabels, Requests, Sums};
pub use self::{
    flags::RequestFlags,
    head::{GrpcStatus, RequestHead, RequestProtocol},
    sizes::RequestSizes,
};
use super::{
    Metrics, Reporter,
    series::{Peer, SeriesLabels},
    trace::Traced,
};
use crate::{
    discovery::model::{ObjectName, Service, Workload},
    identity::Identity,
    policy::Denied,
};

/// What is known of a request when it comes in.
#[derive(Debug, Clone)]
pub struct RequestDescription {
    /// The client's workload, `None` if it isn't known.
    pub source: Option<Arc<Workload>>,
    /// The client, as its certificate proves.
    pub source_identity: Option<Identity>,
    /// The client's own address.
    pub source_address: SocketAddr,
    /// The service that the client dialled.
    pub service: Option<Arc<Service>>,
    /// The waypoint.
    pub waypoint: ObjectName,
    /// What it asks for, as it came.
    pub head: RequestHead,
    /// What trace it belongs to.
    pub trace: Traced,
}

/// Where a request is sent.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The service that the route chose, `None` for a pod that was addressed itself.
    pub service: Option<ObjectName>,
    /// The server's workload, `None` if it isn't one of the mesh.
    pub workload: Option<Arc<Workload>>,
    /// The server, as its certificate proves; `None` if it is reached in plaintext.
    pub identity: Option<Identity>,
    /// The endpoint.
    pub address: SocketAddr,
}

/// How a request ended.
pub struct ResponseOutcome<'a> {
    /// What the client was answered, `None` if it went away before.
    pub status: Option<StatusCode>,
    /// What its gRPC response says, in headers or trailers.
    pub grpc_status: Option<GrpcStatus>,
    /// Why, beside those that were set before.
    pub flags: RequestFlags,
    /// What went wrong, in words; written to the log.
    pub error: Option<&'a dyn fmt::Display>,
}

/// Counts and logs one request. Whichever way it ends, it is counted once and has one line in the
/// access log: by [`Self::finish`], or by being dropped with the response's body or a cancelled
/// task, which says that the client went away ([`RequestFlags::DOWNSTREAM_TERMINATED`]).
#[derive(Debug)]
pub struct RequestReport {
    metrics: Arc<Metrics>,
    description: RequestDescription,
    sizes: Arc<RequestSizes>,
    started: Instant,
    route: Option<ObjectName>,
    upstream: Option<Upstream>,
    attempts: u32,
    status: Option<StatusCode>,
    flags: RequestFlags,
    written: bool,
}

impl RequestReport {
    /// A request has come in.
    #[must_use]
    pub fn open(metrics: &Arc<Metrics>, description: RequestDescription) -> Self {
        metrics.requests.begin();
        Self {
            metrics: metrics.clone(),
            description,
            sizes: Arc::default(),
            started: Instant::now(),
            route: None,
            upstream: None,
            attempts: 0,
            status: None,
            flags: RequestFlags::NONE,
            written: false,
        }
    }

    /// Where bodies are counted.
    #[must_use]
    pub fn sizes(&self) -> &Arc<RequestSizes> {
        &self.sizes
    }

    /// Its trace, whose headers whoever is asked next gets.
    #[must_use]
    pub fn trace(&self) -> &Traced {
        &self.description.trace
    }

    /// The route that it takes.
    pub fn route(&mut self, route: &ObjectName) {
        self.route = Some(route.clone());
    }

    /// It is sent there, for the first time or once more.
    pub fn attempt(&mut self, upstream: Upstream) {
        self.attempts += 1;
        self.upstream = Some(upstream);
    }

    /// Something that its end is to tell.
    pub fn flag(&mut self, flags: RequestFlags) {
        self.flags = self.flags | flags;
    }

    /// A policy refuses it. Counts the policy too.
    pub fn denied(&mut self, denied: &Denied) {
        self.metrics.denied(denied);
        self.flag(RequestFlags::UNAUTHORIZED);
    }

    /// The client has been sent the head of a response, which says this.
    pub fn responded(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Counts and logs it.
    pub fn finish(mut self, outcome: ResponseOutcome<'_>) {
        self.write(&outcome);
    }

    fn write(&mut self, outcome: &ResponseOutcome<'_>) {
        debug_assert!(!self.written, "a request is reported once");
        self.written = true;
        let duration = self.started.elapsed();
        let end = End {
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            flags: self.flags | outcome.flags,
            error: outcome.error.map(ToString::to_string),
            duration,
        };
        self.metrics
            .requests
            .record(&self.labels(&end), duration, &self.sizes);
        access_log::write(self, &end);
        self.metrics.flows.tell(|| flow::view(self, &end));
        if let Some((own, spans)) = self.description.trace.recorded() {
            spans.push(span::of(self, own, &end));
        }
    }

    fn labels(&self, end: &End) -> RequestLabels {
        let description = &self.description;
        let upstream = self.upstream.as_ref();
        let workload = upstream.and_then(|upstream| upstream.workload.as_ref());
        let identity = upstream.and_then(|upstream| upstream.identity.as_ref());
        RequestLabels {
            traffic: SeriesLabels {
                reporter: Reporter::Waypoint,
                source: Peer::new(
                    description.source.as_ref(),
                    description.source_identity.as_ref(),
                ),
                destination: Peer::new(workload, identity),
                service: self.service().cloned(),
                // Both halves of the way.
                secured: upstream.is_none() || identity.is_some(),
            },
            protocol: description.head.protocol,
            status: end.status,
            grpc_status: end.grpc_status,
            flags: end.flags,
        }
    }

    /// The service that answers, or else the one that was asked.
    fn service(&self) -> Option<&ObjectName> {
        let chosen = self.upstream.as_ref().and_then(|it| it.service.as_ref());
        chosen.or_else(|| self.description.service.as_ref().map(|asked| &asked.name))
    }
}

impl Drop for RequestReport {
    fn drop(&mut self) {
        if !self.written {
            self.write(&ResponseOutcome {
                status: self.status,
                grpc_status: None,
                flags: RequestFlags::DOWNSTREAM_TERMINATED,
                error: Some(&"the client went away"),
            });
        }
    }
}

/// How a request ended, all in all.
#[derive(Debug, Clone)]
struct End {
    status: Option<StatusCode>,
    grpc_status: Option<GrpcStatus>,
    flags: RequestFlags,
    error: Option<String>,
    duration: Duration,
}

#[cfg(test)]
mod tests;
