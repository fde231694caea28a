//! Whatever the order of changes, the indexes are those of a store built from the end result.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

/// A change by its object: the manifest to write, or `None` to remove.
type Step = (Kind, String, Option<String>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Readable ones only: what can't be read never comes to the store.
    let labels = prop::sample::select(vec![
        "",
        "labels: {ambit.dev/mesh: enabled}",
        "labels: {ambit.dev/mesh: disabled}",
        "labels: {ambit.dev/use-waypoint: w}",
        "labels: {ambit.dev/mesh: enabled, istio.io/use-waypoint: v}",
    ]);
    let namespace = prop::option::of(labels)
        .prop_map(|labels| labels.map(|labels| namespace("shop", labels)))
        .prop_map(|manifest| (Kind::Namespace, "shop".to_owned(), manifest));
    let tunnel = any::<bool>().prop_map(|set| {
        let manifest = set.then(|| node("a", "annotations: {ambit.dev/tunnel: pod}"));
        (Kind::Node, "a".to_owned(), manifest)
    });
    let pod = (
        0..5u8,
        prop::option::of((0..4u8, 0..3u8, any::<bool>(), 0..6u8)),
    )
        .prop_map(|(number, state)| {
            let manifest = state.map(|(address, app, terminating, status)| {
                let status = match status {
                    0 => "phase: Failed".to_owned(),
                    1 => "conditions: [{type: Ready, status: 'False'}]".to_owned(),
                    _ => String::new(),
                };
                // Distinct, so that whose an address is doesn't depend on the order of arrival.
                let status = format!("startTime: '2026-01-01T00:00:0{number}Z', {status}");
                let deleted = if terminating {
                    "deletionTimestamp: '2026-01-02T00:00:00Z',"
                } else {
                    ""
                };
                let waypoint = [
                    "",
                    ", istio.io/use-waypoint: v",
                    ", ambit.dev/use-waypoint: none",
                ];
                let waypoint = waypoint[usize::from(app) % 3];
                let metadata =
                    format!("{deleted} uid: u{number}, labels: {{app: a{app}{waypoint}}}");
                let address = if address == 0 {
                    String::new()
                } else {
                    format!("10.0.0.{address}")
                };
                super::pod(&format!("p{number}"), &address, &metadata, &status)
            });
            (Kind::Pod, format!("shop/p{number}"), manifest)
        });
    let service = prop::option::of((0..3u8, any::<bool>(), 0..2u8)).prop_map(|state| {
        let manifest = state.map(|(app, local, vip)| {
            let policy = if local {
                "internalTrafficPolicy: Local,"
            } else {
                ""
            };
            super::service(&format!(
                "{policy} clusterIP: 10.96.0.{vip}, selector: {{app: a{app}}}, \
                 ports: [{{port: 80, name: web}}]"
            ))
        });
        (Kind::Service, "shop/cart".to_owned(), manifest)
    });
    let slice = (0..2u8, prop::option::of((0..9u8, any::<bool>()))).prop_map(|(number, state)| {
        let manifest = state.map(|(address, ready)| {
            let conditions = format!("{{ready: {ready}, terminating: {}}}", !ready);
            let endpoint = format!("{{addresses: [10.0.0.{address}], conditions: {conditions}}}");
            super::slice(&format!("s{number}"), &endpoint)
        });
        (Kind::EndpointSlice, format!("shop/s{number}"), manifest)
    });
    let gateway = (
        prop::sample::select(vec!["v", "w"]),
        prop::option::of((0..4usize, any::<bool>(), 0..2u16)),
    )
        .prop_map(|(name, state)| {
            let manifest = state.map(|(serves, on_b, port)| {
                let serves = ["service", "workload", "all", "none"][serves];
                let node = if on_b {
                    "ambit.dev/waypoint-node: b,"
                } else {
                    ""
                };
                let port = 15088 + port;
                super::gateway(
                    name,
                    serves,
                    &format!("{node} ambit.dev/waypoint-port: '{port}'"),
                )
            });
            (Kind::Gateway, format!("shop/{name}"), manifest)
        });
    let step =
        prop_oneof![2 => gateway, 1 => namespace, 1 => tunnel, 6 => pod, 2 => service, 2 => slice];
    prop::collection::vec(step, 0..40)
}

fn changes(step: &Step) -> Vec<Change> {
    let (kind, name, manifest) = step;
    match manifest {
        Some(manifest) => upserts(manifest),
        None => remove(*kind, name),
    }
}

/// Everything that a snapshot answers, in an order of its own.
fn answers(snapshot: &Snapshot) -> Vec<String> {
    let mut lines: Vec<_> = snapshot
        .workloads()
        .map(|workload| format!("{workload:?}"))
        .collect();
    lines.extend(
        snapshot
            .local_workloads("a")
            .map(|workload| format!("on a: {}", workload.uid)),
    );
    for address in (0..12).map(|n| IpAddr::from([10, 0, 0, n])) {
        lines.push(format!(
            "{address}: {:?}",
            snapshot.workload_by_address(address)
        ));
    }
    lines.extend(
        snapshot
            .contested_addresses()
            .map(|contested| format!("{contested:?}")),
    );
    lines.extend(snapshot.services().map(|service| format!("{service:?}")));
    lines.extend(snapshot.waypoints().map(|waypoint| format!("{waypoint:?}")));
    for problem in snapshot.problems() {
        lines.push(format!("{}: {}", problem.object, problem.error));
    }
    for name in ["v", "w"] {
        let identity = Identity::new("cluster.local", "shop", name);
        for workload in snapshot.workloads() {
            let before = snapshot.waypoint_before(&identity, workload);
            let before = before.map(|waypoint| &waypoint.name);
            lines.push(format!("{name} before {}: {before:?}", workload.uid));
        }
    }
    for vip in (0..2).map(|n| IpAddr::from([10, 96, 0, n])) {
        lines.push(format!(
            "{vip}: {:?}",
            snapshot.service_by_vip((vip, 80).into())
        ));
    }
    lines.sort();
    lines
}

/// Follows updates as a map by address would, and a map by uid, and a map of services.
#[derive(Default)]
struct Follower {
    workloads: BTreeMap<String, String>,
    addresses: BTreeMap<IpAddr, String>,
    services: BTreeMap<ObjectName, String>,
}

impl Follower {
    fn follow(&mut self, update: &Update) {
        for WorkloadChange { before, after } in &update.workloads {
            let now = after
                .as_ref()
                .map(|after| (after.uid.to_string(), format!("{after:?}")));
            let old = before
                .as_ref()
                .map(|before| (before.uid.to_string(), format!("{before:?}")));
            replace(&mut self.workloads, old, now);
        }
        for AddressChange {
            address,
            before,
            after,
        } in &update.addresses
        {
            let entry = |workload: &Arc<Workload>| (*address, format!("{workload:?}"));
            replace(
                &mut self.addresses,
                before.as_ref().map(entry),
                after.as_ref().map(entry),
            );
        }
        for ServiceChange { before, after } in &update.services {
            let entry = |service: &Arc<Service>| (service.name.clone(), format!("{service:?}"));
            replace(
                &mut self.services,
                before.as_ref().map(entry),
                after.as_ref().map(entry),
            );
        }
    }
}

fn replace<K: Ord>(
    map: &mut BTreeMap<K, String>,
    old: Option<(K, String)>,
    new: Option<(K, String)>,
) {
    if let Some((key, old)) = old {
        assert_eq!(
            map.remove(&key),
            Some(old),
            "the update tells truly what was before"
        );
    }
    if let Some((key, new)) = new {
        assert_eq!(
            map.insert(key, new),
            None,
            "nothing is replaced that the update doesn't name"
        );
    }
}

proptest! {
    #[test]
    fn indexes_equal_those_of_a_store_built_afresh(
        steps in steps(),
        batch in 1..5usize,
        placement in prop::sample::select(vec![Placement::Pods, Placement::Nodes]),
    ) {
        let store = Store::default();
        store.place_waypoints(placement);
        let mut updates = store.subscribe();
        let mut follower = Follower::default();
        let mut left = BTreeMap::new();
        for steps in steps.chunks(batch) {
            store.apply(steps.iter().flat_map(changes));
            for (kind, name, manifest) in steps {
                left.insert((*kind, name.clone()), manifest.clone());
            }
            while let Ok(update) = updates.try_recv() {
                follower.follow(&update);
            }
        }
        let afresh = Store::default();
        afresh.place_waypoints(placement);
        afresh.apply(left.into_values().flatten().flat_map(|manifest| upserts(&manifest)));
        prop_assert_eq!(answers(&store.snapshot()), answers(&afresh.snapshot()));

        let snapshot = store.snapshot();
        let workloads = snapshot.workloads().map(|w| (w.uid.to_string(), format!("{w:?}")));
        prop_assert_eq!(follower.workloads, workloads.collect());
        let services = snapshot.services().map(|s| (s.name.clone(), format!("{s:?}")));
        prop_assert_eq!(follower.services, services.collect());
        for (address, workload) in follower.addresses {
            let holder = snapshot.workload_by_address(address).map(|w| format!("{w:?}"));
            prop_assert_eq!(holder, Some(workload));
        }
    }
}
