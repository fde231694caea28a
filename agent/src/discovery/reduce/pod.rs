//! A pod as the mesh sees it.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use super::{FieldError, Reducer, address, dns_name, gateway, is_tcp, port, settings, telemetry};
use crate::{
    discovery::{
        facts::{NamedPort, PodFacts},
        model::{Enrolment, ObjectName, Tunnel, Workload, WorkloadUid},
    },
    identity::Identity,
};

pub(super) fn reduce(
    reducer: &mut Reducer,
    pod: Pod,
    issues: &mut Vec<FieldError>,
) -> Result<PodFacts, FieldError> {
    let name = reducer.object_name(&pod.metadata)?;
    let (metadata, spec, status) = (
        pod.metadata,
        pod.spec.unwrap_or_default(),
        pod.status.unwrap_or_default(),
    );

    let addresses = pod_addresses(&status)?;
    let node_addresses = node_addresses(&status)?;
    let identity = identity(reducer, &name, &spec)?;
    let host_network = spec.host_network == Some(true);
    let own_enrolment = settings::enrolment(&metadata, issues);
    let exclusions = settings::exclusions(&metadata, issues);
    let to_pod = settings::tunnel_to_pod(&metadata, issues);
    let waypoint = gateway::use_waypoint(&metadata, &name.namespace, issues);
    let node = match spec.node_name.as_deref() {
        None | Some("") => "",
        Some(node) => dns_name("spec.nodeName", node)?,
    };

    let labels = metadata.labels.unwrap_or_default();
    let owners = metadata.owner_references.unwrap_or_default();
    let telemetry = telemetry::names(&mut reducer.interner, &name.name, &labels, &owners);
    let terminating = metadata.deletion_timestamp.is_some();
    let workload = Workload {
        uid: uid(metadata.uid.as_deref(), &name, &addresses, issues),
        name,
        addresses,
        node: reducer.interner.text(node),
        // Where the node's address isn't known, its agent can't be reached: the pod's can.
        tunnel: if to_pod || node_addresses.is_empty() {
            Tunnel::PodAddress
        } else {
            Tunnel::NodeAgent
        },
        node_addresses,
        identity,
        enrolment: Enrolment::of(host_network, own_enrolment, &labels),
        labels: reducer.interner.labels(labels),
        exclusions: reducer.interner.exclusions(exclusions),
        waypoint: waypoint.named().cloned(),
        ready: is_ready(&status),
        terminating,
        telemetry,
    };
    Ok(PodFacts {
        workload,
        enrolment: own_enrolment,
        waypoint,
        ended: has_ended(&status, terminating),
        started: status
            .start_time
            .or(metadata.creation_timestamp)
            .map(|time| time.0),
        ports: named_ports(reducer, &spec)?,
    })
}

/// A uid of the mesh's own making, for a pod that has none: it changes with name and addresses.
pub(crate) fn derived_uid(name: &ObjectName, addresses: &[IpAddr]) -> WorkloadUid {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    WorkloadUid(format!("{name}@{}", addresses.join(",")).into())
}

fn uid(
    uid: Option<&str>,
    name: &ObjectName,
    addresses: &[IpAddr],
    issues: &mut Vec<FieldError>,
) -> WorkloadUid {
    match uid {
        None | Some("") => derived_uid(name, addresses),
        // The slash is what tells derived uids from given ones.
        Some(text) if text.contains('/') => {
            issues.push(FieldError::unexpected(
                "metadata.uid",
                text,
                "a UID; it is ignored",
            ));
            derived_uid(name, addresses)
        }
        Some(text) => WorkloadUid(text.into()),
    }
}

fn identity(
    reducer: &mut Reducer,
    name: &ObjectName,
    spec: &PodSpec,
) -> Result<Identity, FieldError> {
    let account = match spec.service_account_name.as_deref() {
        None | Some("") => "default",
        Some(account) => dns_name("spec.serviceAccountName", account)?,
    };
    Ok(Identity::new(
        Arc::clone(&reducer.trust_domain),
        Arc::clone(&name.namespace),
        reducer.interner.text(account),
    ))
}

fn pod_addresses(status: &PodStatus) -> Result<Vec<IpAddr>, FieldError> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    addresses("podIP", "podIPs", status.pod_ip.as_deref(), all)
}

fn node_addresses(status: &PodStatus) -> Result<Vec<IpAddr>, FieldError> {
    let all = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str());
    addresses("hostIP", "hostIPs", status.host_ip.as_deref(), all)
}

/// The plural field holds all addresses; the singular one is older and alone in bare manifests.
fn addresses<'a>(
    singular: &str,
    plural: &str,
    one: Option<&str>,
    all: impl Iterator<Item = &'a str>,
) -> Result<Vec<IpAddr>, FieldError> {
    let mut found = Vec::new();
    for (index, text) in all.enumerate().filter(|(_, text)| !text.is_empty()) {
        let parsed = address(format!("status.{plural}[{index}].ip"), text)?;
        if !found.contains(&parsed) {
            found.push(parsed);
        }
    }
    if let (true, Some(text)) = (found.is_empty(), one.filter(|text| !text.is_empty())) {
        found.push(address(format!("status.{singular}"), text)?);
    }
    // Nearly always one, and kept for each pod.
    found.shrink_to_fit();
    Ok(found)
}

fn is_ready(status: &PodStatus) -> bool {
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    ready.is_none_or(|condition| condition.status == "True")
}

/// Whether none of the pod's processes runs any more. A deleted pod lives on until its containers
/// have stopped; only then may nobody hold its identity.
fn has_ended(status: &PodStatus, terminating: bool) -> bool {
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let stopped = |state: &k8s_openapi::api::core::v1::ContainerStatus| {
        state
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    };
    terminating && !containers.is_empty() && containers.iter().all(stopped)
}

/// Named TCP ports of the containers, and of init containers that keep running (sidecars).
fn named_ports(reducer: &mut Reducer, spec: &PodSpec) -> Result<Arc<[NamedPort]>, FieldError> {
    let mut found = Vec::new();
    let mut collect = |field: &str, index: usize, container: &Container| {
        for (position, declared) in container.ports.iter().flatten().enumerate() {
            let Some(name) = declared.name.as_deref().filter(|name| !name.is_empty()) else {
                continue;
            };
            if is_tcp(declared.protocol.as_deref()) {
                let field = format!("spec.{field}[{index}].ports[{position}].containerPort");
                let port = port(field, declared.container_port)?;
                found.push(NamedPort {
                    name: reducer.interner.text(name),
                    port,
                });
            }
        }
        Ok(())
    };
    for (index, container) in spec.containers.iter().enumerate() {
        collect("containers", index, container)?;
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        if container.restart_policy.as_deref() == Some("Always") {
            collect("initContainers", index, container)?;
        }
    }
    Ok(reducer.interner.ports(found))
}
