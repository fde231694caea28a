//! What both an agent and a waypoint tell their operator.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{
    admin::{CertificateView, ProblemView},
    discovery::{model::ObjectName, problems::Problems, store::Snapshot},
    identity::{Certificates, certificates::CertificateState},
};

pub(super) fn certificates(certificates: &Certificates) -> Vec<CertificateView> {
    certificates.states().iter().map(certificate).collect()
}

pub(super) fn problems(problems: &Problems, snapshot: &Snapshot) -> Vec<ProblemView> {
    let problems = problems.list();
    let contested = snapshot
        .contested_addresses()
        .map(|(address, pods)| contested_view(address, pods));
    let of_objects = problems.iter().map(|problem| ProblemView {
        source: problem.origin.to_string(),
        object: problem.kind.object(),
        field: problem.kind.field().map(str::to_owned),
        message: problem.kind.to_string(),
    });
    of_objects.chain(contested).collect()
}

fn contested_view(address: IpAddr, pods: &[ObjectName]) -> ProblemView {
    let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
    ProblemView {
        source: "addresses of pods".to_owned(),
        object: pods.first().map(|first| format!("Pod {first}")),
        field: Some("status.podIPs".to_owned()),
        message: format!(
            "{address} is claimed by {}: the first has it",
            pods.join(", ")
        ),
    }
}

/// A certificate as it is shown.
pub(super) fn certificate(state: &CertificateState) -> CertificateView {
    let certificate = state.certificate.as_ref();
    let time = |time| Timestamp::try_from(time).ok().map(|time| time.to_string());
    CertificateView {
        identity: state.identity.to_string(),
        serial: certificate.map(|certificate| certificate.serial().to_owned()),
        not_before: certificate.and_then(|certificate| time(certificate.not_before())),
        not_after: certificate.and_then(|certificate| time(certificate.not_after())),
        error: state.error.as_ref().map(ToString::to_string),
    }
}
