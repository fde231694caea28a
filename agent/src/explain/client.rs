//! The source: who it is, and whether what it opens is captured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{NodeFacts, Question, Step, question::Source};
use crate::{
    discovery::{
        model::{Enrolment, Workload},
        reduce::enrolling_label,
    },
    identity::Identity,
};

/// How the client's connections start.
pub(super) struct Client<'a> {
    /// Its address, of the destination's family if it has one.
    pub(super) address: IpAddr,
    /// The pod, if it is one that the mesh knows.
    pub(super) pod: Option<&'a Workload>,
    /// Who it is to the mesh; `None` if its connections aren't captured.
    pub(super) identity: Option<&'a Identity>,
    /// Whether it's a pod of the node that is asked.
    pub(super) is_here: bool,
}

pub(super) fn steps<'a>(
    steps: &mut Vec<Step>,
    facts: &dyn NodeFacts,
    question: &'a Question,
) -> Client<'a> {
    let pod = match &question.source {
        Source::Address(address) => {
            let text = format!("{address} is no pod that the mesh knows: it speaks plaintext");
            steps.push(Step::note("source", text));
            return Client {
                address: *address,
                pod: None,
                identity: None,
                is_here: false,
            };
        }
        Source::Pod(pod) => pod,
    };
    let address = address_for(pod, question.destination.address);
    steps.push(Step::ok("source", described(pod)));
    steps.push(enrolment("source", pod));
    let is_here = *pod.node == *facts.node();
    if pod.is_enrolled() && is_here {
        steps.push(interface(facts, pod));
    } else if pod.is_enrolled() {
        steps.push(elsewhere(pod));
    }
    let excluded = pod.is_enrolled().then(|| excluded(pod, question)).flatten();
    let is_captured = pod.is_enrolled() && excluded.is_none();
    if let Some(text) = excluded {
        steps.push(Step::note("exclusion", text));
    }
    Client {
        address,
        pod: Some(pod),
        identity: is_captured.then_some(&pod.identity),
        is_here,
    }
}

/// Who a pod is, and where.
pub(super) fn described(pod: &Workload) -> String {
    let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
    format!(
        "pod {} on node {}, {}, {}",
        pod.name,
        pod.node,
        addresses.join(" and "),
        pod.identity
    )
}

/// Whether a pod takes part, and by what.
pub(super) fn enrolment(end: &str, pod: &Workload) -> Step {
    let subject = format!("{end} enrolled");
    let own = enrolling_label(&pod.labels);
    let own = own.map(|(label, value, _)| format!("its own label {label}={value}"));
    let namespace = &pod.name.namespace;
    let by = own.unwrap_or_else(|| format!("the label of namespace {namespace}"));
    match pod.enrolment {
        Enrolment::Enrolled => Step::ok(&subject, format!("yes, by {by}")),
        Enrolment::NotLabelled => {
            let text = format!(
                "no: neither the pod nor namespace {namespace} has label ambit.dev/mesh=enabled"
            );
            Step::note(&subject, text)
        }
        Enrolment::Disabled => Step::note(&subject, format!("no, by {by}")),
        Enrolment::HostNetwork => {
            let text =
                "no: it is in its node's network (hostNetwork), where pods can't be told apart";
            Step::note(&subject, text)
        }
        Enrolment::Waypoint => {
            let text = "no: it is a waypoint, and speaks HBONE itself; only what it opens to enrolled pods of its \
                        node comes to the agent";
            Step::note(&subject, text)
        }
    }
}

fn interface(facts: &dyn NodeFacts, pod: &Workload) -> Step {
    let cure = "see `ambit status`; its new connections wait until the interface is known, then --unknown-pods \
                says what becomes of them";
    match facts.interface(pod) {
        Err(reason) => Step::fails(
            "capture",
            format!("its interface isn't known: {reason}"),
            cure,
        ),
        Ok(found) if !found.is_attached => Step::fails(
            "capture",
            format!(
                "the kernel refused the programs for {} (index {})",
                found.name, found.index
            ),
            "the agent's log has the kernel's reason; it is tried again with the next event",
        ),
        Ok(found) => Step::ok(
            "capture",
            format!(
                "interface {} (index {}), by from_pod at its {} ingress and to_pod at its egress",
                found.name, found.index, found.mechanism
            ),
        ),
    }
}

fn elsewhere(pod: &Workload) -> Step {
    Step::unknown(
        "capture",
        format!("the agent of node {} knows", pod.node),
        format!("ask there too: {}", ask_on(&pod.node)),
    )
}

/// How to ask the agent of a node.
pub(super) fn ask_on(node: &str) -> String {
    format!(
        "kubectl -n ambit-system exec $(kubectl -n ambit-system get pods -l app.kubernetes.io/name=ambit-node \
         --field-selector spec.nodeName={node} -o name) -- ambit explain ..."
    )
}

/// What keeps the destination from being captured.
fn excluded(pod: &Workload, question: &Question) -> Option<String> {
    let address = question.destination.address?;
    let exclusions = &pod.exclusions;
    if exclusions.outbound_ports.contains(&address.port()) {
        let port = address.port();
        return Some(format!(
            "annotation ambit.dev/exclude-outbound-ports has {port}: such connections aren't captured"
        ));
    }
    let network = exclusions
        .outbound_cidrs
        .iter()
        .find(|network| network.contains(&address.ip()))?;
    Some(format!(
        "annotation ambit.dev/exclude-outbound-cidrs has {network}: such connections aren't captured"
    ))
}

/// The pod's address that a connection to the destination comes from.
fn address_for(pod: &Workload, destination: Option<SocketAddr>) -> IpAddr {
    let is_same =
        |address: &&IpAddr| destination.is_none_or(|it| it.is_ipv4() == address.is_ipv4());
    let same = pod.addresses.iter().find(is_same).or(pod.addresses.first());
    // A question about a pod without address isn't understood.
    same.copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
