//! Certificates, and whether whoever takes the tunnel can be reached.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};

use super::{
    NodeFacts, Probe, ProbeError, Reached, Step,
    client::{Client, ask_on},
};
use crate::{
    admin::CertificateView,
    discovery::model::WorkloadUid,
    hbone::pool::PoolKey,
    identity::Identity,
    proxy::route::{Request, Route},
};

/// The other end of a tunnel.
struct Peer<'a> {
    identity: &'a Identity,
    uid: &'a WorkloadUid,
    via: SocketAddr,
    /// As in "the agent of node b".
    who: String,
}

pub(super) async fn steps(
    steps: &mut Vec<Step>,
    facts: &dyn NodeFacts,
    client: &Client<'_>,
    way: &Request,
) {
    let Some(source) = client.identity else {
        return;
    };
    let peer = match &way.route {
        Route::Local(_) | Route::Plain(_) => return,
        Route::Tunnel { workload, via } => Peer {
            identity: &workload.identity,
            uid: &workload.uid,
            via: *via,
            who: format!("the agent of node {}", workload.node),
        },
        Route::Waypoint { waypoint, via, .. } => Peer {
            identity: &waypoint.identity,
            uid: &waypoint.uid,
            via: *via,
            who: format!("waypoint {}", waypoint.name),
        },
    };
    let has_certificate = client.is_here && certificate(steps, facts, source);
    let probe = match has_certificate {
        true => Probe::Tunnel(PoolKey {
            source: source.clone(),
            destination: peer.identity.clone(),
            uid: peer.uid.clone(),
            address: peer.via,
        }),
        false => Probe::Listener(peer.via),
    };
    let reached = facts.probe(probe).await;
    steps.push(reach(&peer, facts.node(), reached));
    if let (false, Some(pod)) = (client.is_here, client.pod) {
        steps.push(Step::unknown(
            "certificate",
            format!("the agent of node {} has the source's", pod.node),
            format!("ask there too: {}", ask_on(&pod.node)),
        ));
    }
}

/// Says how the certificate of an identity of this node is; whether there is one.
fn certificate(steps: &mut Vec<Step>, facts: &dyn NodeFacts, identity: &Identity) -> bool {
    let cure = "see `ambit certificates` and `ambit status`; is control running, and reachable at --ca-address?";
    let found = facts.certificate(identity);
    let now = Timestamp::now();
    let end = found.as_ref().and_then(CertificateView::end);
    let is_valid = end.is_some_and(|end| end > now);
    let error = found.and_then(|it| it.error);
    steps.push(match (end, error) {
        (Some(end), None) if is_valid => {
            Step::ok("certificate", format!("{identity}, {}", until(end, now)))
        }
        (Some(end), Some(error)) if is_valid => Step {
            cure: Some(cure.to_owned()),
            ..Step::note(
                "certificate",
                format!(
                    "{identity}, {}, but it couldn't be renewed: {error}",
                    until(end, now)
                ),
            )
        },
        (Some(end), error) => {
            let why = error.unwrap_or_else(|| "it is being renewed".to_owned());
            Step::fails(
                "certificate",
                format!("{identity} expired at {end}: {why}"),
                cure,
            )
        }
        (None, Some(error)) => {
            Step::fails("certificate", format!("none for {identity}: {error}"), cure)
        }
        (None, None) => Step::note(
            "certificate",
            format!("none for {identity} yet: it is asked for with the first connection"),
        ),
    });
    is_valid
}

fn reach(peer: &Peer<'_>, node: &str, reached: Result<Reached, ProbeError>) -> Step {
    let Peer { via, who, .. } = peer;
    let subject = format!("port {}", via.port());
    let port = via.port();
    match reached {
        Ok(Reached::Listener) => Step::ok(
            &subject,
            format!("{via} ({who}) takes connections from node {node}"),
        ),
        Ok(Reached::Peer(end)) => {
            let end = end.and_then(|end| Timestamp::try_from(end).ok());
            let until =
                end.map(|end| format!(", with a certificate {}", until(end, Timestamp::now())));
            Step::ok(
                &subject,
                format!(
                    "{via} ({who}) answers and proves to be {}{}",
                    peer.identity,
                    until.unwrap_or_default()
                ),
            )
        }
        Err(ProbeError::Silence(seconds)) => Step::fails(
            &subject,
            format!(
                "no answer from {via} ({who}) within {seconds} s: it looks as if a NetworkPolicy or firewall \
                 blocks {port}"
            ),
            format!(
                "allow TCP {port} from node {node} to {}: in NetworkPolicies, in the nodes' firewall and in the \
                 cloud's security groups",
                via.ip()
            ),
        ),
        Err(ProbeError::Refused) => Step::fails(
            &subject,
            format!("{via} ({who}) refuses: nobody listens there"),
            "is it running and ready? kubectl -n ambit-system get pods -o wide",
        ),
        Err(ProbeError::Unreachable(error)) => Step::fails(
            &subject,
            format!("{via} ({who}) is out of reach: {error}"),
            format!(
                "is there a route from node {node}? An answer like this may also come from a firewall that \
                 rejects"
            ),
        ),
        Err(ProbeError::Peer(error)) => Step::fails(
            &subject,
            format!("{via} ({who}) answers, and no tunnel comes about: {error}"),
            "its log says more; do both sides trust the same root (`ambit certificates`)?",
        ),
    }
}

/// `until 2026-01-01T00:00:00Z (23h 59m 50s)`
fn until(end: Timestamp, now: Timestamp) -> String {
    let left = SignedDuration::from_secs(now.duration_until(end).as_secs());
    format!("until {end} ({left:#})")
}
