//! One structured line for each request.

use tracing::Level;

use super::{End, RequestReport};
use crate::telemetry::access_log::TARGET;

/// Writes the line: at `info` if nothing went wrong here, at `warn` if something did. A key whose
/// value isn't known is left out.
pub(super) fn write(report: &RequestReport, end: &End) {
    // The level of an event is part of its static description, hence an event for each.
    macro_rules! write {
        ($level:expr, $message:literal) => {{
            let known = &report.description;
            let head = &known.head;
            let (source, upstream) = (known.source.as_deref(), report.upstream.as_ref());
            let destination = upstream.and_then(|upstream| upstream.workload.as_deref());
            let identity = upstream.and_then(|upstream| upstream.identity.as_ref());
            let names = report.metrics.requests.names();
            // `parent: None`: the spans of the task that carried the request say nothing more.
            tracing::event!(
                target: TARGET,
                parent: None,
                $level,
                method = head.method.as_str(),
                path = head.path(),
                authority = head.authority(),
                protocol = format!("HTTP/{}", head.version()),
                status = end.status.map(|status| status.as_u16()),
                grpc_status = end.grpc_status.map(|status| status.code()),
                flags = %end.flags,
                bytes_recv = report.sizes.request(),
                bytes_sent = report.sizes.response(),
                duration = format!("{}ms", end.duration.as_millis()),
                src.addr = %known.source_address,
                src.workload = source.map(|workload| &*workload.name.name),
                src.namespace = source.map(|workload| &*workload.name.namespace),
                src.identity = known.source_identity.as_ref().map(tracing::field::display),
                dst.addr = upstream.map(|upstream| tracing::field::display(upstream.address)),
                dst.service = report.service().map(|name| names.service_host(name)),
                dst.workload = destination.map(|workload| &*workload.name.name),
                dst.namespace = destination.map(|workload| &*workload.name.namespace),
                dst.identity = identity.map(tracing::field::display),
                dst.waypoint = %known.waypoint,
                route = report.route.as_ref().map(tracing::field::display),
                attempts = (report.attempts > 1).then_some(report.attempts),
                trace_id = known.trace.id().map(tracing::field::display),
                user_agent = head.user_agent(),
                direction = "through",
                error = end.error.as_deref(),
                $message
            );
        }};
    }
    match end.error {
        None => write!(Level::INFO, "request complete"),
        Some(_) => write!(Level::WARN, "request failed"),
    }
}
