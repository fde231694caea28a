//! Whether an open connection may stay. Pure.

use std::{fmt, sync::Arc};

use super::OpenConnection;
use crate::{
    discovery::{
        model::{ObjectName, Workload, WorkloadUid},
        store::Snapshot,
    },
    identity::Identity,
    policy::{self, Connection, Denied},
    telemetry::{Outcome, ResponseFlags},
};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client.
    Source,
    /// The server.
    Destination,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "client",
            Self::Destination => "server",
        })
    }
}

/// Why an open connection must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// A policy that came into force denies it.
    #[error("closed by a policy change: {0}")]
    Denied(#[from] Denied),
    /// The pod ended; another may have its address soon.
    #[error("the {end}'s workload {workload} is gone")]
    Gone {
        /// Whose.
        end: End,
        /// The pod.
        workload: ObjectName,
    },
    /// The pod isn't captured any more: its packets no longer come to the agent.
    #[error("the {end}'s workload {workload} left the mesh")]
    LeftMesh {
        /// Whose.
        end: End,
        /// The pod.
        workload: ObjectName,
    },
    /// The pod runs as another service account than the connection was authorised for.
    #[error("the {end}'s workload {workload} is {now} now, who wasn't authorised")]
    IdentityChanged {
        /// Whose.
        end: End,
        /// The pod.
        workload: ObjectName,
        /// Who it is now.
        now: Identity,
    },
}

impl CloseReason {
    /// What metrics and access log say of the connection.
    #[must_use]
    pub fn outcome(&self) -> Outcome<'_> {
        let flags = match self {
            Self::Denied(denied) => return Outcome::Denied(denied),
            Self::Gone { .. } | Self::LeftMesh { .. } => ResponseFlags::None,
            Self::IdentityChanged { .. } => ResponseFlags::IdentityError,
        };
        Outcome::Failed { flags, error: self }
    }
}

/// What [`check`] asks about the present.
pub(super) struct Present<W, P> {
    /// The workload that has this uid.
    pub(super) workload: W,
    /// Whether policy allows a connection.
    pub(super) evaluate: P,
}

/// As [`check`], against a snapshot.
pub(super) fn check_in(
    snapshot: &Snapshot,
    node: &str,
    connection: &OpenConnection,
) -> Result<(), CloseReason> {
    let present = Present {
        workload: |uid: &WorkloadUid| snapshot.workload(uid),
        evaluate: |connection: &Connection<'_>| {
            // The permit is for dialling, which is long done.
            policy::evaluate(snapshot.policies(), connection).map(drop)
        },
    };
    check(&present, node, connection)
}

/// Whether a connection of the agent of `node` may stay.
///
/// Policy is decided by the agent of the server's node, so only for a server on `node`.
pub(super) fn check<'a, W, P>(
    present: &Present<W, P>,
    node: &str,
    connection: &OpenConnection,
) -> Result<(), CloseReason>
where
    W: Fn(&WorkloadUid) -> Option<&'a Arc<Workload>>,
    P: Fn(&Connection<'_>) -> Result<(), Denied>,
{
    let still_there = |end, before: &Arc<Workload>| match (present.workload)(&before.uid) {
        None => Err(CloseReason::Gone {
            end,
            workload: before.name.clone(),
        }),
        Some(now) if now.identity != before.identity => Err(CloseReason::IdentityChanged {
            end,
            workload: before.name.clone(),
            now: now.identity.clone(),
        }),
        Some(now) if before.is_enrolled() && !now.is_enrolled() => Err(CloseReason::LeftMesh {
            end,
            workload: before.name.clone(),
        }),
        Some(now) => Ok(now),
    };
    if let Some(source) = &connection.source {
        still_there(End::Source, source)?;
    }
    let Some(destination) = &connection.destination else {
        return Ok(());
    };
    let destination = still_there(End::Destination, destination)?;
    if *destination.node != *node {
        return Ok(());
    }
    (present.evaluate)(&Connection {
        source: connection.source_identity.as_ref(),
        source_address: connection.source_address.ip(),
        destination,
        destination_address: connection.destination_address,
    })
    .map_err(CloseReason::Denied)
}
