//! What an observer is told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    discovery::model::Workload,
    millis,
    policy::Denied,
    telemetry::{
        ConnectionDescription, Outcome, Reporter, ResponseFlags, Transfer, access_log::Line,
    },
};

/// A line of `/observe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlowLine {
    /// The observer read too slowly.
    Lost {
        /// Events that it didn't get, about here.
        lost: u64,
    },
    /// Something happened.
    Flow(Box<FlowView>),
}

/// What happened to a connection or a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowView {
    /// When, RFC 3339.
    pub time: String,
    /// What.
    pub event: FlowEvent,
    /// What became of it; absent until that is known.
    pub verdict: Option<Verdict>,
    /// Why it was denied or failed.
    pub reason: Option<String>,
    /// The policies that denied it, namespace and name with commas between.
    pub policy: Option<String>,
    /// Istio's word for how it ended, `-` for an ordinary end.
    pub flags: Option<String>,
    /// Which end's agent this is, or a waypoint.
    pub reporter: Reporter,
    /// What all lines of one connection by one reporter have in common.
    pub connection: Option<u64>,
    /// Namespace and name of the client's pod.
    pub source: Option<String>,
    /// The client's proven identity.
    pub source_identity: Option<String>,
    /// The client's own address.
    pub source_address: SocketAddr,
    /// Namespace and name of the server's pod.
    pub destination: Option<String>,
    /// The server's proven identity.
    pub destination_identity: Option<String>,
    /// Address and port of the server, behind any service.
    pub destination_address: Option<SocketAddr>,
    /// The other agent's or the waypoint's address, for what goes in a tunnel.
    pub tunnel: Option<SocketAddr>,
    /// Namespace and name of the service that the client dialled.
    pub service: Option<String>,
    /// Namespace and name of the waypoint that it goes through, or should.
    pub waypoint: Option<String>,
    /// Whether it is mutual TLS's, or stays on the node between pods whose identities are known.
    pub secured: bool,
    /// Whether it goes from pod to pod in the kernel, without the agent.
    pub passed: bool,
    /// Bytes from server to client so far.
    pub bytes_sent: u64,
    /// Bytes from client to server so far.
    pub bytes_received: u64,
    /// Since it was opened; whole milliseconds in JSON.
    #[serde(rename = "duration_ms", with = "millis")]
    pub duration: Duration,
    /// TCP's smoothed round trip time in microseconds, known at the end.
    pub rtt_us: Option<u32>,
    /// Segments that were sent again, known at the end.
    pub retransmits: Option<u32>,
    /// What was asked for, if a waypoint knows.
    pub request: Option<RequestView>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowEvent {
    /// A connection was open already when the observer came.
    Open,
    /// A client has connected. What becomes of it isn't decided yet.
    Opened,
    /// A connection has ended, or was refused.
    Closed,
    /// A waypoint has answered a request.
    Request,
}

/// What became of a connection or request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was carried to its end.
    Allowed,
    /// Policy refused it, or ended it later.
    Denied,
    /// Anything else.
    Failed,
}

impl FlowEvent {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Request => "request",
        }
    }
}

impl Verdict {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    /// As in JSON, and in a filter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// What was asked of a waypoint, and what it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// HTTP's method.
    pub method: String,
    /// The host, with port if the client gave it.
    pub authority: Option<String>,
    /// The path, without query.
    pub path: String,
    /// HTTP's status; absent if the client went away before.
    pub status: Option<u16>,
    /// gRPC's status.
    pub grpc_status: Option<u8>,
}

impl FlowView {
    /// A connection that is open.
    pub(in crate::telemetry) fn open(
        event: FlowEvent,
        connection: u64,
        description: &ConnectionDescription,
        transfer: &Transfer,
        duration: Duration,
    ) -> Self {
        let known = description;
        let path = transfer.path();
        let name = |workload: &Option<_>| workload.as_ref().map(name_of);
        let text = |identity: &Option<_>| identity.as_ref().map(ToString::to_string);
        Self {
            time: Timestamp::now().to_string(),
            event,
            verdict: None,
            reason: None,
            policy: None,
            flags: None,
            reporter: known.reporter,
            connection: Some(connection),
            source: name(&known.source),
            source_identity: text(&known.source_identity),
            source_address: known.source_address,
            destination: name(&known.destination),
            destination_identity: text(&known.destination_identity),
            destination_address: Some(known.hbone_address.unwrap_or(known.destination_address)),
            tunnel: known.hbone_address.map(|_| known.destination_address),
            service: known
                .service
                .as_ref()
                .map(|service| service.name.to_string()),
            waypoint: known.waypoint.as_ref().map(|it| it.name().to_string()),
            secured: known.secured,
            passed: known.passed,
            bytes_sent: transfer.sent(),
            bytes_received: transfer.received(),
            duration,
            rtt_us: path.map(|path| path.round_trip),
            retransmits: path.map(|path| path.retransmitted),
            request: None,
        }
    }

    /// A connection that has ended, as the access log has it.
    pub(in crate::telemetry) fn closed(connection: u64, line: &Line<'_>) -> Self {
        let (reason, policy) = match line.outcome {
            Outcome::Complete => (None, None),
            Outcome::Denied(denied) => (Some(denied.to_string()), policies(denied)),
            Outcome::Refused(refusal) => (Some(refusal.error.to_string()), None),
            Outcome::Failed { error, .. } => (Some(error.to_string()), None),
        };
        let flags = line.outcome.flags();
        let verdict = match line.outcome {
            Outcome::Complete => Verdict::Allowed,
            // Another agent's policy is a failure with the flag.
            _ if flags == ResponseFlags::Deny => Verdict::Denied,
            _ => Verdict::Failed,
        };
        Self {
            verdict: Some(verdict),
            reason,
            policy,
            flags: Some(flags.as_str().to_owned()),
            ..Self::open(
                FlowEvent::Closed,
                connection,
                line.description,
                line.transfer,
                line.duration,
            )
        }
    }
}

/// Namespace and name.
pub(in crate::telemetry) fn name_of(workload: &Arc<Workload>) -> String {
    workload.name.to_string()
}

/// The policies that a refusal names.
pub(in crate::telemetry) fn policies(denied: &Denied) -> Option<String> {
    match denied {
        Denied::ByPolicy { rule } => Some(rule.policy.to_string()),
        Denied::NotAllowed { policies, .. } => {
            let names: Vec<_> = policies.iter().map(ToString::to_string).collect();
            Some(names.join(","))
        }
        Denied::PlaintextRefused { policy, .. } => Some(policy.to_string()),
        Denied::PastWaypoint { .. } => None,
    }
}
