//! What became of each pod of a node: pure.

use std::collections::BTreeMap;

use crate::{
    admin::reason_to_wait,
    discovery::{
        model::{Enrolment, Workload, WorkloadUid},
        store::{Snapshot, Store},
    },
    identity::pod_report::PodState,
};

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// This is what to tell.
    Settled(PodState),
    /// This, unless it becomes something else soon.
    Waiting(PodState),
    /// Nothing is to be told: it ends, or the CNI hasn't answered yet.
    Passing,
    /// Nobody asks it into the mesh; if it was asked before, this is what to tell.
    NotAsked(PodState),
}

/// Pods of a node.
pub(super) type Standings = BTreeMap<WorkloadUid, Standing>;

/// Every pod of the node. `is_bound` says whether a pod's interface is known, `why_not` why it isn't.
pub(super) fn standings(
    store: &Store,
    node: &str,
    is_bound: impl Fn(&WorkloadUid) -> bool,
    why_not: impl Fn(&WorkloadUid) -> Option<String>,
) -> Standings {
    let snapshot = store.snapshot();
    let standing = |pod: &Workload| {
        let host_network = pod.enrolment == Enrolment::HostNetwork;
        let asked = pod.is_enrolled() || host_network && store.asks_for(&pod.name);
        let unbound = (!is_bound(&pod.uid)).then(|| why_not(&pod.uid));
        of(pod, asked, unbound, &snapshot)
    };
    let pods = snapshot.local_workloads(node);
    pods.map(|pod| (pod.uid.clone(), standing(pod))).collect()
}

/// `unbound` is there if the pod's interface isn't known, and says why, if capture does.
fn of(
    pod: &Workload,
    asked: bool,
    unbound: Option<Option<String>>,
    snapshot: &Snapshot,
) -> Standing {
    let state = |enrolled, reason: &str, message: String| PodState {
        uid: pod.uid.to_string(),
        namespace: pod.name.namespace.to_string(),
        name: pod.name.name.to_string(),
        enrolled,
        reason: reason.to_owned(),
        message,
    };
    if !asked {
        let message = "Neither the pod's labels nor its namespace's ask it into the mesh.";
        return Standing::NotAsked(state(false, "NotAsked", message.to_owned()));
    }
    if pod.enrolment == Enrolment::HostNetwork {
        let message = "The pod is in its node's network (spec.hostNetwork) and has no interface of its own: its \
                       traffic is left alone.";
        return Standing::Settled(state(false, "HostNetwork", message.to_owned()));
    }
    if pod.terminating || pod.addresses.is_empty() {
        return Standing::Passing;
    }
    let Some(why_not) = unbound else {
        let message = "The pod's traffic is the mesh's.";
        return Standing::Settled(state(true, "Enrolled", message.to_owned()));
    };
    let is_taken = pod.addresses.iter().any(|address| {
        let holder = snapshot.workload_by_address(*address);
        holder.is_some_and(|holder| holder.uid != pod.uid)
    });
    let reason = if is_taken {
        "AddressTaken"
    } else {
        "NoInterface"
    };
    let message = format!(
        "New connections of the pod wait: {}.",
        reason_to_wait(pod, snapshot, why_not)
    );
    Standing::Waiting(state(false, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{manifest, reduce::Reducer, store::Change};

    #[test]
    fn each_pod_of_the_node_has_what_is_told_of_it() {
        let store = Store::default();
        let pod = |name: &str, label: &str, spec: &str, status: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, uid: {name}, {label}}},
                   spec: {{nodeName: a, containers: [], {spec}}}, status: {{phase: Running, {status}}}}}\n---\n"
            )
        };
        let out = "labels: {ambit.dev/mesh: disabled}";
        let host = "hostNetwork: true";
        let yaml = [
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {ambit.dev/mesh: enabled}}}\n---\n".into(),
            pod("bound", "", "", "podIP: 10.0.0.1"),
            pod("unbound", "", "", "podIP: 10.0.0.2"),
            pod("starting", "", "", ""),
            pod("ending", "deletionTimestamp: '2026-01-01T00:00:00Z'", "", "podIP: 10.0.0.3"),
            pod("out", out, "", "podIP: 10.0.0.4"),
            pod("host", "", host, "podIP: 192.168.0.1"),
            pod("host-out", out, host, "podIP: 192.168.0.1"),
            pod("old", "", "", "podIP: 10.0.0.5, startTime: '2026-01-01T00:00:00Z'"),
            pod("new", "", "", "podIP: 10.0.0.5, startTime: '2026-01-02T00:00:00Z'"),
        ]
        .concat();
        let read = manifest::parse(
            &yaml,
            manifest::Format::Yaml,
            &mut Reducer::new("cluster.local"),
        );
        let read = read.unwrap();
        assert!(read.errors.is_empty(), "{:?}", read.errors);
        store.apply(read.objects.into_iter().map(|it| Change::Upsert(it.object)));
        let bound = |uid: &WorkloadUid| matches!(&*uid.0, "bound" | "new");
        let told: Vec<String> = standings(&store, "a", bound, |_| None)
            .into_iter()
            .map(|(uid, standing)| match standing {
                Standing::Settled(state) => format!("{uid}: {} {}", state.enrolled, state.reason),
                Standing::Waiting(state) => format!("{uid}: waits, {}", state.reason),
                Standing::NotAsked(state) => format!("{uid}: {}", state.reason),
                Standing::Passing => format!("{uid}: passing"),
            })
            .collect();
        let expected = [
            "bound: true Enrolled",
            "ending: passing",
            "host: false HostNetwork",
            "host-out: NotAsked",
            "new: true Enrolled",
            "old: waits, AddressTaken",
            "out: NotAsked",
            "starting: passing",
            "unbound: waits, NoInterface",
        ];
        assert_eq!(told, expected);
        assert!(standings(&store, "b", bound, |_| None).is_empty());
    }
}
