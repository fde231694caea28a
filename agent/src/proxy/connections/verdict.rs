//! Whether an open connection may stay. Pure.

use std::{fmt, net::IpAddr, sync::Arc};

use super::{Decided, OpenConnection};
use crate::{
    discovery::{
        model::{ObjectName, Workload, WorkloadUid},
        store::Snapshot,
    },
    identity::Identity,
    policy::{self, Connection, Denied, Through, ViaWaypoint, WaypointScope},
    proxy::route,
    telemetry::{Outcome, Reporter, ResponseFlags},
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
    /// The server's pod is captured now: it has a right to mutual TLS and to its policies, and the
    /// connection was made without.
    #[error("the server's workload {workload} joined the mesh, and the connection is plaintext")]
    JoinedMesh {
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
    /// It was opened past it, or by way of another.
    #[error("connections to its destination go through waypoint {waypoint} now")]
    OtherWaypoint {
        /// The waypoint.
        waypoint: ObjectName,
    },
    /// The agent stops, and the connection went on for longer than it may then.
    #[error("the agent stopped, and the connection was still open when --drain had passed")]
    Drained,
}

impl CloseReason {
    /// What metrics and access log say of the connection.
    #[must_use]
    pub fn outcome(&self) -> Outcome<'_> {
        let flags = match self {
            Self::Denied(denied) => return Outcome::Denied(denied),
            Self::Gone { .. }
            | Self::LeftMesh { .. }
            | Self::JoinedMesh { .. }
            | Self::OtherWaypoint { .. }
            | Self::Drained => ResponseFlags::None,
            Self::IdentityChanged { .. } => ResponseFlags::IdentityError,
        };
        Outcome::Failed { flags, error: self }
    }
}

/// What [`check`] asks about the present.
pub(super) struct Present<W, A, P> {
    /// The workload that has this uid.
    pub(super) workload: W,
    /// The workload that has this address.
    pub(super) holder: A,
    /// Whether policy allows a connection.
    pub(super) evaluate: P,
}

/// As [`check`], against a snapshot.
pub(super) fn check_in(
    snapshot: &Snapshot,
    node: &str,
    connection: &OpenConnection,
) -> Result<(), CloseReason> {
    let reporter = connection.reporter;
    let present = Present {
        workload: |uid: &WorkloadUid| snapshot.workload(uid),
        holder: |address| snapshot.workload_by_address(address),
        evaluate: |connection: &Connection<'_>| {
            let through = match reporter {
                Reporter::Waypoint => Through::None,
                Reporter::Source | Reporter::Destination => {
                    snapshot.through(connection.source, connection.destination)
                }
            };
            let connection = Connection {
                through,
                ..*connection
            };
            // The permit is for dialling, which is long done.
            policy::evaluate(snapshot.policies(), &connection).map(drop)
        },
    };
    check(&present, node, connection)?;
    check_attached(snapshot, connection)?;
    check_waypoint(snapshot, node, connection)
}

/// Whether the policies that are attached to the waypoint, or to the service, still allow a connection.
fn check_attached(snapshot: &Snapshot, connection: &OpenConnection) -> Result<(), CloseReason> {
    let (Decided::AtWaypoint(asked_for), Some(gateway)) =
        (connection.decided, &connection.waypoint)
    else {
        return Ok(());
    };
    let scope = WaypointScope {
        gateway,
        service: connection.service.as_ref(),
    };
    let attached = ViaWaypoint {
        source: connection.source_identity.as_ref(),
        source_address: connection.source_address.ip(),
        asked_for,
        request: None,
    };
    Ok(policy::evaluate_at_waypoint(
        snapshot.policies(),
        &scope,
        &attached,
    )?)
}

/// Whether a connection of one of this node's pods went the way that it would go now, as far as
/// waypoints are concerned. One that needs none any more goes on.
fn check_waypoint(
    snapshot: &Snapshot,
    node: &str,
    connection: &OpenConnection,
) -> Result<(), CloseReason> {
    let source = connection.source.as_ref();
    let source = source.filter(|source| *source.node == *node);
    let Some(source) = source.filter(|_| connection.reporter != Reporter::Waypoint) else {
        return Ok(());
    };
    let service = connection.service.as_ref();
    let service = service.and_then(|name| snapshot.service(name));
    let destination = connection.destination.as_ref();
    let destination = destination.and_then(|before| snapshot.workload(&before.uid));
    let (service, destination) = (service.map(|it| &**it), destination.map(|it| &**it));
    match route::waypoint_for(snapshot, &source.identity, service, destination) {
        Some(now) if connection.waypoint.as_ref() != Some(&now.name) => {
            Err(CloseReason::OtherWaypoint {
                waypoint: now.name.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether a connection of the agent of `node` may stay.
///
/// Policy is decided by the agent of the server's node, so only for a server on `node`, and by waypoints.
pub(super) fn check<'a, W, A, P>(
    present: &Present<W, A, P>,
    node: &str,
    connection: &OpenConnection,
) -> Result<(), CloseReason>
where
    W: Fn(&WorkloadUid) -> Option<&'a Arc<Workload>>,
    A: Fn(IpAddr) -> Option<&'a Arc<Workload>>,
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
    if connection.decided == Decided::ByRequest {
        return Ok(());
    }
    let joined = |now: &Workload| match now.is_enrolled() {
        true => Err(CloseReason::JoinedMesh {
            workload: now.name.clone(),
        }),
        false => Ok(()),
    };
    let Some(before) = &connection.destination else {
        // An address of nobody's when the connection was decided.
        let holder = (present.holder)(connection.destination_address.ip());
        return holder.map_or(Ok(()), |now| joined(now));
    };
    let destination = still_there(End::Destination, before)?;
    if !before.is_enrolled() {
        joined(destination)?;
    }
    let decides = match connection.reporter {
        Reporter::Waypoint => true,
        // The waypoint decides.
        Reporter::Source if connection.waypoint.is_some() => false,
        // Policies are for pods that are captured.
        Reporter::Source | Reporter::Destination => {
            *destination.node == *node && destination.is_enrolled()
        }
    };
    if !decides {
        return Ok(());
    }
    (present.evaluate)(&Connection {
        source: connection.source_identity.as_ref(),
        source_address: connection.source_address.ip(),
        destination,
        destination_address: connection.destination_address,
        through: Through::None,
        request: None,
    })
    .map_err(CloseReason::Denied)
}
