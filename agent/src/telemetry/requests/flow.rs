//! What an observer is told of a request.

use jiff::Timestamp;

use super::{End, RequestFlags, RequestReport};
use crate::telemetry::{
    Reporter,
    flows::{FlowEvent, FlowView, RequestView, Verdict},
};

pub(super) fn view(report: &RequestReport, end: &End) -> FlowView {
    let known = &report.description;
    let head = &known.head;
    let upstream = report.upstream.as_ref();
    let destination = upstream.and_then(|upstream| upstream.workload.as_ref());
    let identity = upstream.and_then(|upstream| upstream.identity.as_ref());
    let verdict = if end.flags.contains(RequestFlags::UNAUTHORIZED) {
        Verdict::Denied
    } else if end.error.is_some() {
        Verdict::Failed
    } else {
        Verdict::Allowed
    };
    FlowView {
        time: Timestamp::now().to_string(),
        event: FlowEvent::Request,
        verdict: Some(verdict),
        reason: end.error.clone(),
        policy: None,
        flags: Some(end.flags.to_string()),
        reporter: Reporter::Waypoint,
        connection: None,
        source: known.source.as_ref().map(|it| it.name.to_string()),
        source_identity: known.source_identity.as_ref().map(ToString::to_string),
        source_address: known.source_address,
        destination: destination.map(|it| it.name.to_string()),
        destination_identity: identity.map(ToString::to_string),
        destination_address: upstream.map(|upstream| upstream.address),
        tunnel: None,
        service: report.service().map(ToString::to_string),
        waypoint: Some(known.waypoint.to_string()),
        secured: upstream.is_none() || identity.is_some(),
        passed: false,
        bytes_sent: report.sizes.response(),
        bytes_received: report.sizes.request(),
        duration: end.duration,
        rtt_us: None,
        retransmits: None,
        request: Some(RequestView {
            method: head.method.to_string(),
            authority: head.authority().map(str::to_owned),
            path: head.path().to_owned(),
            status: end.status.map(|status| status.as_u16()),
            grpc_status: end.grpc_status.map(|status| status.code()),
        }),
    }
}
