//! Why a connection was refused, or cut off: one enum for all three ways in, in the operator's
//! words, and what metrics and other agents are told of it.

use std::net::SocketAddr;

use http::StatusCode;

use super::{
    connections::{CloseReason, ConnectionGuard, RegisterError},
    connector,
    copy::CopyError,
    dial,
    route::NoRoute,
    tunnels::AnswerError,
};
use crate::{
    discovery::model::ObjectName,
    hbone::{Authority, client::OpenError, pool::PoolError},
    identity::Identity,
    policy::Denied,
    telemetry::{ConnectionReport, Outcome, ResponseFlags},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A client of this node: no way to where it wants to go.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Another agent asks for a service by name.
    #[error("the authority {0} is a name, and no waypoint serves names here")]
    Name(Authority),
    /// A waypoint is asked for what there isn't.
    #[error("there is no service and no workload {0} here")]
    Unknown(Authority),
    /// A waypoint is asked for what another stands before, or none.
    #[error(
        "{authority} doesn't use waypoint {waypoint}: its labels name another or none, or the waypoint \
         isn't for such traffic (istio.io/waypoint-for)"
    )]
    NotOurs {
        /// What is asked for.
        authority: Authority,
        /// Who is asked.
        waypoint: ObjectName,
    },
    /// Another agent asks for the agent itself.
    #[error("port {0} is the agent's own, not a workload's")]
    OwnPort(u16),
    /// The destination isn't, or is no longer, an enrolled pod of this node.
    #[error("{0} is no enrolled workload of this node")]
    NotHere(SocketAddr),
    /// The tunnel is for another workload than the stream.
    #[error("the tunnel was opened to {tunnel}, and {address} is {workload}")]
    OtherIdentity {
        /// Whose certificate the tunnel was opened with.
        tunnel: Box<Identity>,
        /// What the stream asks for.
        address: SocketAddr,
        /// Who that is.
        workload: Box<Identity>,
    },
    /// Policy says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The open set is full, or a change forbade the connection meanwhile.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The server can't be reached.
    #[error(transparent)]
    Dial(#[from] dial::Error),
    /// The destination's agent can't be reached, or refused.
    #[error(transparent)]
    Tunnel(#[from] PoolError<connector::Error>),
    /// The client's agent was gone before it had its answer.
    #[error("the client's agent gave up: {0}")]
    Answer(#[from] AnswerError),
    /// The kernel carries it.
    #[error("the agent stopped, and the connection goes on from pod to pod without it")]
    LeftAlone,
    /// One side failed while bytes moved.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl From<CloseReason> for Error {
    fn from(reason: CloseReason) -> Self {
        Self::Register(reason.into())
    }
}

impl Error {
    /// What another agent is told, that asked for the stream.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Name(_) | Self::OwnPort(_) | Self::NotHere(_) | Self::OtherIdentity { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::NotOurs { .. } => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Denied(_) | Self::Register(RegisterError::Closed(CloseReason::Denied(_))) => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoRoute(_)
            | Self::Register(_)
            | Self::Dial(_)
            | Self::Tunnel(_)
            | Self::Answer(_)
            | Self::LeftAlone
            | Self::Copy(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether nobody listens at the other end of the tunnel that there should have been.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Tunnel(PoolError::Connect(cause)) => matches!(**cause, connector::Error::Dial(_)),
            Self::Tunnel(PoolError::ConnectTimeout(_)) => true,
            _ => false,
        }
    }

    /// The nearest of Istio's reasons.
    fn flags(&self) -> ResponseFlags {
        match self {
            Self::Denied(_) => ResponseFlags::Deny,
            Self::OtherIdentity { .. } => ResponseFlags::IdentityError,
            Self::Tunnel(error) => tunnel_flags(error),
            Self::NoRoute(_)
            | Self::Name(_)
            | Self::Unknown(_)
            | Self::NotOurs { .. }
            | Self::OwnPort(_)
            | Self::NotHere(_)
            | Self::Register(_)
            | Self::Dial(_) => ResponseFlags::Connect,
            Self::Answer(_) | Self::LeftAlone | Self::Copy(_) => ResponseFlags::None,
        }
    }
}

fn tunnel_flags(error: &PoolError<connector::Error>) -> ResponseFlags {
    match error {
        PoolError::Connect(cause) => match &**cause {
            connector::Error::Certificate(_) => ResponseFlags::IdentityError,
            connector::Error::Dial(_) => ResponseFlags::Connect,
            connector::Error::Peer(_) | connector::Error::Handshake(_) => ResponseFlags::TlsFailure,
        },
        PoolError::ConnectTimeout(_) => ResponseFlags::NetworkPolicy,
        PoolError::Handshake(_) => ResponseFlags::H2HandshakeFailure,
        PoolError::Open(OpenError::Denied(_)) => ResponseFlags::Deny,
        PoolError::Open(_)
        | PoolError::Timeout
        | PoolError::TooManyTunnels(_)
        | PoolError::Invalidated
        | PoolError::Draining => ResponseFlags::Connect,
    }
}

/// What a copy's end means: one that was cancelled by a change says which.
pub(crate) fn ended(guard: &ConnectionGuard, copied: Result<(), CopyError>) -> Result<(), Error> {
    match (copied, guard.closed_by()) {
        (Err(CopyError::Cancelled), Some(reason)) => {
            Err(RegisterError::Closed(reason.clone()).into())
        }
        (copied, _) => Ok(copied?),
    }
}

/// Closes a report with how the connection ended.
pub(crate) fn finish(report: ConnectionReport, result: &Result<(), Error>) {
    match result {
        Ok(()) => report.finish(Outcome::Complete),
        Err(Error::Denied(denied)) => report.finish(Outcome::Denied(denied)),
        Err(Error::Register(error)) => report.finish(error.outcome()),
        Err(error) => report.finish(Outcome::Failed {
            flags: error.flags(),
            error,
        }),
    }
}
