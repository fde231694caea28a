//! Whom STRICT would break, at `/plaintext`.

use std::{net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    discovery::{
        model::{Enrolment, Workload},
        store::Snapshot,
    },
    policy::{evaluate::mtls::effective_mtls, model::MtlsMode},
    proxy::plaintext_clients::{Kind, PlaintextClients, Seen},
};

/// What a node has seen of plaintext to its enrolled pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaintextView {
    /// The node.
    pub node: String,
    /// For how long its agent has been looking.
    pub watched_seconds: u64,
    /// Who spoke plaintext to whom, by pod, port and client.
    pub clients: Vec<PlaintextClientView>,
    /// Connections of further clients that there was no room to remember.
    pub left_out: u64,
}

/// One client of one port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaintextClientView {
    /// Namespace and name of the pod that was asked.
    pub pod: String,
    /// The port.
    pub port: u16,
    /// What PeerAuthentication says of it now: `PERMISSIVE`, `DISABLE` or `STRICT`.
    pub mode: String,
    /// Namespace and name of the client's pod, or the node, if it's known.
    pub client: Option<String>,
    /// The client's address.
    pub address: IpAddr,
    /// How many connections.
    pub connections: u64,
    /// How long ago the last began.
    pub last_seconds: u64,
    /// What to do about it.
    pub cure: String,
}

impl PlaintextView {
    /// Of what was seen since `started`, as things stand in a snapshot.
    #[must_use]
    pub fn of(
        snapshot: &Snapshot,
        node: &str,
        clients: &PlaintextClients,
        (started, now): (Instant, Instant),
    ) -> Self {
        let (seen, left_out) = clients.list();
        let view = |(kind, seen): &(Kind, Seen)| {
            // Of pods that are gone nobody needs to know.
            let pod = snapshot.workload(&kind.pod)?;
            Some(client(snapshot, pod, kind, *seen, now))
        };
        let mut clients: Vec<_> = seen.iter().filter_map(view).collect();
        clients.sort();
        Self {
            node: node.to_owned(),
            watched_seconds: now.duration_since(started).as_secs(),
            clients,
            left_out,
        }
    }
}

fn client(
    snapshot: &Snapshot,
    pod: &Workload,
    kind: &Kind,
    seen: Seen,
    now: Instant,
) -> PlaintextClientView {
    let port = kind.server.port();
    let said = effective_mtls(snapshot.policies(), pod, port);
    let mode = said.map_or(MtlsMode::Permissive, |said| said.mode);
    let (client, cure) = who(snapshot, kind.client, &pod.name.namespace, port);
    PlaintextClientView {
        pod: pod.name.to_string(),
        port,
        mode: mode.to_string(),
        client,
        address: kind.client,
        connections: seen.connections,
        last_seconds: now.duration_since(seen.last).as_secs(),
        cure,
    }
}

/// Who has an address, and how they would get in after STRICT.
fn who(
    snapshot: &Snapshot,
    address: IpAddr,
    namespace: &str,
    port: u16,
) -> (Option<String>, String) {
    let exempt = format!(
        "portLevelMtls {port}: PERMISSIVE for the pod's labels in namespace {namespace}, or a gateway that is \
         in the mesh"
    );
    if let Some(pod) = snapshot.workload_by_address(address) {
        let theirs = &pod.name.namespace;
        let cure = match pod.enrolment {
            Enrolment::NotLabelled => format!("label namespace {theirs} ambit.dev/mesh=enabled"),
            Enrolment::Disabled => {
                format!("take ambit.dev/mesh=disabled off it, or off namespace {theirs}")
            }
            Enrolment::Enrolled => "none: it is in the mesh since".to_owned(),
            // A waypoint's agent doesn't take what it opens here.
            Enrolment::HostNetwork | Enrolment::Waypoint => exempt,
        };
        return (Some(pod.name.to_string()), cure);
    }
    let on_node = |pod: &&Arc<Workload>| pod.node_addresses.contains(&address);
    match snapshot.workloads().find(on_node) {
        Some(pod) => (Some(format!("node {}", pod.node)), exempt),
        None => (None, exempt),
    }
}
