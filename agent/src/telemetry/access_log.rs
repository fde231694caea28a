//! The access log: one structured line for each connection, with ztunnel's keys, and
//! with TCP's measures where they are known.

use std::time::Duration;

use tracing::Level;

use super::{ConnectionDescription, Outcome, Transfer, report::WaypointUse, series::ClusterNames};

/// The target of the access log's lines, for filters such as `info,ambit::access=off`.
pub const TARGET: &str = "ambit::access";

/// What a line says.
pub(super) struct Line<'a> {
    pub(super) description: &'a ConnectionDescription,
    /// Knows the service's DNS name.
    pub(super) names: &'a ClusterNames,
    pub(super) transfer: &'a Transfer,
    pub(super) duration: Duration,
    pub(super) outcome: &'a Outcome<'a>,
}

/// Writes the line: at `info` for a connection that ended well, at `warn` for any other. A key
/// whose value isn't known is left out.
pub(super) fn write(line: &Line<'_>) {
    // The level of an event is part of its static description, hence an event for each.
    macro_rules! write {
        ($level:expr, $message:literal, $error:expr) => {{
            let known = line.description;
            let (source, destination) = (known.source.as_deref(), known.destination.as_deref());
            let path = line.transfer.path();
            let service = known.service.as_ref().map(|service| &service.name);
            // `parent: None`: the spans of the task that carried the connection say nothing more.
            tracing::event!(
                target: TARGET,
                parent: None,
                $level,
                src.addr = %known.source_address,
                src.workload = source.map(|workload| &*workload.name.name),
                src.namespace = source.map(|workload| &*workload.name.namespace),
                src.identity = known.source_identity.as_ref().map(tracing::field::display),
                dst.addr = %known.destination_address,
                dst.hbone_addr = known.hbone_address.map(tracing::field::display),
                dst.service = service.map(|name| line.names.service_host(name)),
                dst.workload = destination.map(|workload| &*workload.name.name),
                dst.namespace = destination.map(|workload| &*workload.name.namespace),
                dst.identity = known.destination_identity.as_ref().map(tracing::field::display),
                dst.waypoint = known.waypoint.as_ref().map(|waypoint| waypoint.name().to_string()),
                note = known.waypoint.as_ref().and_then(WaypointUse::note),
                direction = known.reporter.direction().as_str(),
                bytes_sent = line.transfer.sent(),
                bytes_recv = line.transfer.received(),
                rtt = path.map(|path| format!("{}us", path.round_trip)),
                retransmits = path.map(|path| path.retransmitted),
                duration = format!("{}ms", line.duration.as_millis()),
                error = $error,
                $message
            );
        }};
    }
    match line.outcome {
        Outcome::Complete => {
            write!(Level::INFO, "connection complete", None::<&str>);
        }
        Outcome::Denied(denied) => {
            write!(Level::WARN, "connection denied", Some(denied.to_string()));
        }
        // Somebody could fill the log with them, which has a line of its own for many.
        Outcome::Refused(_) => {}
        Outcome::Failed { error, .. } => {
            write!(Level::WARN, "connection failed", Some(error.to_string()));
        }
    }
}
