//! The labels and annotations by which namespaces, nodes and pods steer the mesh.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::FieldError;
use crate::discovery::model::Exclusions;

/// Label, value for yes, value for no. An earlier label wins over a later one.
const ENROLMENT: [(&str, &str, &str); 2] = [
    ("ambit.dev/mesh", "enabled", "disabled"),
    ("istio.io/dataplane-mode", "ambient", "none"),
];

const OUTBOUND_PORTS: &str = "ambit.dev/exclude-outbound-ports";
const INBOUND_PORTS: &str = "ambit.dev/exclude-inbound-ports";
const OUTBOUND_CIDRS: &str = "ambit.dev/exclude-outbound-cidrs";
const SPLICE: &str = "ambit.dev/splice";
const TUNNEL: &str = "ambit.dev/tunnel";

/// Entries of one exclusion annotation that are read. They end up in maps of the kernel, which have
/// a size of their own and are shared by all pods of the node: no one pod may fill them.
const MAX_ENTRIES: usize = 256;

/// What the labels of a namespace or pod say of enrolment; `None` if nothing that is understood.
pub(super) fn enrolment(metadata: &ObjectMeta, issues: &mut Vec<FieldError>) -> Option<bool> {
    let labels = metadata.labels.as_ref()?;
    for (label, yes, no) in ENROLMENT {
        if let Some(value) = labels.get(label)
            && value != yes
            && value != no
        {
            let expected = format!("\"{yes}\" or \"{no}\"");
            let field = format!("metadata.labels[{label}]");
            issues.push(FieldError::unexpected(field, value, &expected));
        }
    }
    enrolling_label(labels).map(|(_, _, enrols)| enrols)
}

/// The label that decides on enrolment, its value, and what it says; `None` if there is none that is
/// understood.
#[must_use]
pub fn enrolling_label(
    labels: &BTreeMap<String, String>,
) -> Option<(&'static str, &'static str, bool)> {
    ENROLMENT.into_iter().find_map(|(label, yes, no)| {
        let value = labels.get(label)?;
        match value.as_str() {
            value if value == yes => Some((label, yes, true)),
            value if value == no => Some((label, no, false)),
            _ => None,
        }
    })
}

/// Whether the annotation `ambit.dev/tunnel: pod` is there, on a Node or a pod.
///
/// It says that HBONE for the pod (for all pods of the node) ends at the pod's own address, as
/// with Istio's ztunnel, and not at an Ambit agent of its node.
pub(super) fn tunnel_to_pod(metadata: &ObjectMeta, issues: &mut Vec<FieldError>) -> bool {
    says(metadata, TUNNEL, "pod", issues)
}

/// Whether an annotation has the one value that means something.
fn says(metadata: &ObjectMeta, key: &str, value: &str, issues: &mut Vec<FieldError>) -> bool {
    match annotation(metadata, key) {
        None => false,
        Some(found) if found == value => true,
        Some(other) => {
            let expected = format!("\"{value}\"; it counts as not set");
            let field = format!("metadata.annotations[{key}]");
            issues.push(FieldError::unexpected(field, other, &expected));
            false
        }
    }
}

/// What the annotations of a namespace or pod exclude from capture, and from the splice. Bad entries, and
/// those beyond [`MAX_ENTRIES`], are left out.
pub(super) fn exclusions(metadata: &ObjectMeta, issues: &mut Vec<FieldError>) -> Exclusions {
    Exclusions {
        outbound_ports: list(metadata, OUTBOUND_PORTS, PORT, parse_port, issues),
        inbound_ports: list(metadata, INBOUND_PORTS, PORT, parse_port, issues),
        outbound_cidrs: list(metadata, OUTBOUND_CIDRS, NETWORK, parse_network, issues),
        no_splice: says(metadata, SPLICE, "disabled", issues),
    }
}

const PORT: &str = "a port between 1 and 65535; it is ignored";
const NETWORK: &str = "a network such as 10.0.0.0/8, or an address; it is ignored";

fn list<T: Ord>(
    metadata: &ObjectMeta,
    key: &str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
    issues: &mut Vec<FieldError>,
) -> Vec<T> {
    let text = annotation(metadata, key).unwrap_or_default();
    if text.trim().is_empty() {
        return Vec::new();
    }
    let field = || format!("metadata.annotations[{key}]");
    let mut values = Vec::new();
    for entry in text.split(',').map(str::trim).take(MAX_ENTRIES) {
        match parse(entry) {
            Some(value) => values.push(value),
            None => issues.push(FieldError::unexpected(field(), entry, expected)),
        }
    }
    let found = text.split(',').count();
    if found > MAX_ENTRIES {
        let reason = format!(
            "has {found} entries, and {MAX_ENTRIES} is the most; those after the first \
             {MAX_ENTRIES} are ignored, so their traffic is captured"
        );
        issues.push(FieldError::new(field(), reason));
    }
    values.sort();
    values.dedup();
    values
}

fn parse_port(entry: &str) -> Option<u16> {
    entry.parse().ok().filter(|port| *port != 0)
}

/// Host bits are cleared, and an IPv4-mapped network becomes the IPv4 one.
fn parse_network(entry: &str) -> Option<IpNet> {
    let network = entry
        .parse::<IpNet>()
        .or_else(|_| entry.parse::<IpAddr>().map(IpNet::from))
        .ok()?
        .trunc();
    let mapped = match network {
        IpNet::V6(v6) => v6
            .addr()
            .to_ipv4_mapped()
            .zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    match mapped {
        Some((address, length)) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        None => Some(network),
    }
}

pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}
