//! The span of a request, by OpenTelemetry's semantic conventions for servers of HTTP and of RPC.

use std::time::UNIX_EPOCH;

use http::{Method, uri::Authority};

use super::{End, RequestProtocol, RequestReport};
use crate::telemetry::{
    otlp::{Attributes, Span, SpanKind, status},
    trace::OwnSpan,
};

/// gRPC's statuses that are a server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS.
const GRPC_FAULTS: [u8; 6] = [2, 4, 12, 13, 14, 15];
/// The span has a parent elsewhere, and says so (`SpanFlags` of OTLP).
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The span of a request that has ended.
pub(super) fn of(report: &RequestReport, own: &OwnSpan, end: &End) -> Span {
    let began = own.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos =
        |since_1970: std::time::Duration| u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
    let context = &own.context;
    let remote = own.parent.map_or(0, |_| IS_REMOTE);
    let fault = fault(report, end);
    Span {
        trace_id: context.span.trace.bytes().into(),
        span_id: context.span.span.bytes().into(),
        trace_state: context.state.as_str().unwrap_or_default().into(),
        parent_span_id: own
            .parent
            .map_or_else(Vec::new, |parent| parent.bytes().into()),
        flags: u32::from(context.span.flags()) | KNOWS_REMOTE | remote,
        name: name(report),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began + end.duration),
        attributes: attributes(report, end, fault.as_deref()).into(),
        status: status(fault.map(|fault| end.error.clone().unwrap_or(fault))),
        ..Span::default()
    }
}

/// Of few values: a path isn't one of few.
fn name(report: &RequestReport) -> String {
    let head = &report.description.head;
    match call(report) {
        Some((service, method)) => format!("{service}/{method}"),
        None => known_method(&head.method).unwrap_or("HTTP").to_owned(),
    }
}

/// Service and method of a gRPC call.
fn call(report: &RequestReport) -> Option<(&str, &str)> {
    let head = &report.description.head;
    let path = head.path().strip_prefix('/')?;
    let call = path.rsplit_once('/')?;
    (head.protocol == RequestProtocol::Grpc).then_some(call)
}

fn known_method(method: &Method) -> Option<&str> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::PATCH,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    known.contains(method).then(|| method.as_str())
}

/// What makes it an error of the server's side, in one word.
fn fault(report: &RequestReport, end: &End) -> Option<String> {
    let grpc = report.description.head.protocol == RequestProtocol::Grpc;
    let grpc_status = end.grpc_status.filter(|_| grpc).map(|status| status.code());
    if let Some(code) = grpc_status.filter(|code| GRPC_FAULTS.contains(code)) {
        return Some(code.to_string());
    }
    match end.status {
        Some(status) if status.is_server_error() => Some(status.as_str().to_owned()),
        Some(_) => None,
        None => Some(end.flags.to_string()),
    }
}

fn attributes(report: &RequestReport, end: &End, fault: Option<&str>) -> Attributes {
    let known = &report.description;
    let head = &known.head;
    let method = known_method(&head.method);
    let unknown = method.is_none().then(|| head.method.as_str());
    let authority: Option<Authority> = head.authority().and_then(|text| text.parse().ok());
    let mut all = Attributes::default()
        .text("http.request.method", method.unwrap_or("_OTHER"))
        .text_if("http.request.method_original", unknown)
        .text("url.scheme", "http")
        .text("url.path", head.path())
        .text("network.protocol.name", "http")
        .text("network.protocol.version", head.version())
        .text_if("server.address", authority.as_ref().map(Authority::host))
        .text("client.address", known.source_address.ip().to_string())
        .number("client.port", known.source_address.port())
        .text_if("user_agent.original", head.user_agent())
        .number("http.request.body.size", report.sizes.request())
        .number("http.response.body.size", report.sizes.response())
        .text_if("error.type", fault);
    if let Some(port) = authority.and_then(|authority| authority.port_u16()) {
        all = all.number("server.port", port);
    }
    if let Some(status) = end.status {
        all = all.number("http.response.status_code", status.as_u16());
    }
    if let Some((service, method)) = call(report) {
        all = all
            .text("rpc.system", "grpc")
            .text("rpc.service", service)
            .text("rpc.method", method);
    }
    if let Some(status) = end.grpc_status {
        all = all.number("rpc.grpc.status_code", status.code());
    }
    of_mesh(report, end, all)
}

/// What only a mesh knows, under the names of its metrics.
fn of_mesh(report: &RequestReport, end: &End, all: Attributes) -> Attributes {
    let known = &report.description;
    let upstream = report.upstream.as_ref();
    let destination = upstream.and_then(|upstream| upstream.workload.as_deref());
    let principal = upstream.and_then(|upstream| upstream.identity.as_ref());
    let names = report.metrics.requests.names();
    let source = known.source.as_deref();
    let all = all
        .text_if("source.workload", source.map(|it| &*it.telemetry.workload))
        .text_if("source.namespace", source.map(|it| &*it.name.namespace))
        .text_if(
            "source.principal",
            known.source_identity.as_ref().map(ToString::to_string),
        )
        .text_if(
            "destination.service",
            report.service().map(|name| names.service_host(name)),
        )
        .text_if(
            "destination.workload",
            destination.map(|it| &*it.telemetry.workload),
        )
        .text_if(
            "destination.namespace",
            destination.map(|it| &*it.name.namespace),
        )
        .text_if("destination.principal", principal.map(ToString::to_string))
        .text_if(
            "destination.address",
            upstream.map(|it| it.address.to_string()),
        )
        .text_if(
            "ambit.route",
            report.route.as_ref().map(ToString::to_string),
        )
        .text("ambit.waypoint", known.waypoint.to_string())
        .text("ambit.response_flags", end.flags.to_string());
    match report.attempts {
        0 | 1 => all,
        more => all.number("http.request.resend_count", more - 1),
    }
}

#[cfg(test)]
mod tests;
