//! The report of one connection, which feeds metrics and access log.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Metrics, Reporter, ResponseFlags, Transfer, access_log,
    flows::{FlowEvent, FlowView},
    open_count::OpenCount,
    refusals::Refusal,
    traffic::Opened,
};
use crate::{
    discovery::model::{Enrolment, ObjectName, Service, Workload},
    identity::Identity,
    policy::Denied,
};

/// What is known of a connection when it opens, for metrics and log.
#[derive(Debug, Clone)]
pub struct ConnectionDescription {
    /// Which end's agent this is; the direction follows from it.
    pub reporter: Reporter,
    /// The client's workload, `None` if it isn't one of the mesh.
    pub source: Option<Arc<Workload>>,
    /// The client, as proven by interface or certificate.
    pub source_identity: Option<Identity>,
    /// The client's own address.
    pub source_address: SocketAddr,
    /// The server's workload, `None` if it isn't one of the mesh.
    pub destination: Option<Arc<Workload>>,
    /// The server, as its certificate proves or as this node knows its own pod.
    pub destination_identity: Option<Identity>,
    /// Where the connection goes: the endpoint, behind any service; the other agent's or the
    /// waypoint's address for a tunnelled one.
    pub destination_address: SocketAddr,
    /// What the tunnel was asked to reach, for a tunnelled connection.
    pub hbone_address: Option<SocketAddr>,
    /// The service that the client dialled.
    pub service: Option<Arc<Service>>,
    /// Whether mutual TLS carries it.
    pub secured: bool,
    /// Whether it goes from pod to pod in the kernel, without the agent.
    pub passed: bool,
    /// The waypoint that it goes through, or should.
    pub waypoint: Option<WaypointUse>,
}

impl ConnectionDescription {
    /// Whether it stays between pods of the node, as far as the client's agent tells.
    pub(super) fn is_local(&self) -> bool {
        self.reporter == Reporter::Source && self.secured && self.hbone_address.is_none()
    }
}

/// What a waypoint has to do with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaypointUse {
    /// It goes through this one.
    Through(ObjectName),
    /// It goes past this one, which isn't ready.
    Missing(ObjectName),
}

impl WaypointUse {
    /// The waypoint.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Through(name) | Self::Missing(name) => name,
        }
    }

    /// What has to be said of it.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        match self {
            Self::Through(_) => None,
            Self::Missing(_) => {
                Some("the waypoint isn't ready: went without it (--waypoint-missing=allow)")
            }
        }
    }
}

/// How a connection ended.
pub enum Outcome<'a> {
    /// Both sides closed it.
    Complete,
    /// Policy refused it, or ended it later. Counts the policy too.
    Denied(&'a Denied),
    /// One too many. Counted, and not logged by itself: there may be as many as somebody likes.
    Refused(Refusal<'a>),
    /// Anything else.
    Failed {
        /// The nearest of Istio's reasons.
        flags: ResponseFlags,
        /// In words; written to the log.
        error: &'a dyn fmt::Display,
    },
}

/// Counts and logs one connection. Whichever way it ends, it is counted as closed once and has
/// one line in the access log (but for what is refused as one too many): by [`Self::finish`], or by being dropped (a cancelled task, a
/// panic), with the error `aborted`.
///
/// Its bytes appear in metrics at every scrape, not only at the end.
#[derive(Debug)]
pub struct ConnectionReport {
    metrics: Arc<Metrics>,
    opened: Opened,
    written: bool,
    _open: OpenCount,
}

impl ConnectionReport {
    /// Counts a connection as opened at both of its ends, whose agent is this one, and when. A waypoint reports by
    /// itself what it opens.
    #[must_use]
    pub fn open_both(
        metrics: &Arc<Metrics>,
        description: ConnectionDescription,
        transfer: &Arc<Transfer>,
        started: Instant,
    ) -> Vec<Self> {
        let open = |reporter, description| {
            let description = ConnectionDescription {
                reporter,
                ..description
            };
            Self::open_at(metrics, description, transfer.clone(), started)
        };
        let mut reports = Vec::with_capacity(2);
        let reports_itself = |source: &Arc<Workload>| source.enrolment == Enrolment::Waypoint;
        if !description.source.as_ref().is_some_and(reports_itself) {
            reports.push(open(Reporter::Source, description.clone()));
        }
        reports.push(open(Reporter::Destination, description));
        reports
    }

    /// Counts a connection as opened now.
    ///
    /// `transfer` is where the copy loop counts; two reports of one connection share it.
    #[must_use]
    pub fn open(
        metrics: &Arc<Metrics>,
        description: ConnectionDescription,
        transfer: Arc<Transfer>,
    ) -> Self {
        Self::open_at(metrics, description, transfer, Instant::now())
    }

    fn open_at(
        metrics: &Arc<Metrics>,
        description: ConnectionDescription,
        transfer: Arc<Transfer>,
        started: Instant,
    ) -> Self {
        let open = metrics.connection_opened(description.reporter.direction());
        let opened = metrics.traffic.open(description, transfer, started);
        metrics.flows.tell(|| opened.view(FlowEvent::Opened));
        Self {
            metrics: metrics.clone(),
            opened,
            written: false,
            _open: open,
        }
    }

    /// Where the copy loop counts.
    #[cfg(test)]
    pub(crate) fn transfer(&self) -> &Arc<Transfer> {
        &self.opened.live.transfer
    }

    /// Counts the connection as closed, and logs it.
    pub fn finish(mut self, outcome: Outcome<'_>) {
        self.write(&outcome);
    }

    fn write(&mut self, outcome: &Outcome<'_>) {
        debug_assert!(!self.written, "a connection is reported once");
        self.written = true;
        if let Outcome::Denied(denied) = outcome {
            self.metrics.denied(denied);
        }
        if let Outcome::Refused(refusal) = outcome {
            self.metrics.connection_refused(refusal);
        }
        let live = &self.opened.live;
        if let Some(path) = live.transfer.path() {
            let direction = live.description.reporter.direction();
            self.metrics.measured(direction, path);
        }
        let traffic = &self.metrics.traffic;
        traffic.close(&self.opened, outcome.flags());
        let line = access_log::Line {
            description: &live.description,
            names: traffic.names(),
            transfer: &live.transfer,
            duration: live.started.elapsed(),
            outcome,
        };
        access_log::write(&line);
        let key = self.opened.key;
        self.metrics.flows.tell(|| FlowView::closed(key, &line));
    }
}

impl Opened {
    /// As it is now.
    pub(super) fn view(&self, event: FlowEvent) -> FlowView {
        let live = &self.live;
        let age = live.started.elapsed();
        FlowView::open(event, self.key, &live.description, &live.transfer, age)
    }
}

impl Drop for ConnectionReport {
    fn drop(&mut self) {
        if !self.written {
            self.write(&Outcome::Failed {
                flags: ResponseFlags::None,
                error: &"aborted",
            });
        }
    }
}

impl Outcome<'_> {
    pub(super) fn flags(&self) -> ResponseFlags {
        match self {
            Self::Complete => ResponseFlags::None,
            Self::Denied(_) => ResponseFlags::Deny,
            Self::Refused(_) => ResponseFlags::Connect,
            Self::Failed { flags, .. } => *flags,
        }
    }
}

#[cfg(test)]
mod tests;
