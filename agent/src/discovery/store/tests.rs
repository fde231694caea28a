mod properties;
mod routes;
mod services;
mod traffic_policies;
mod waypoints;

use super::*;
use crate::discovery::{
    manifest::{self, Format},
    model::{Enrolment, Tunnel},
    reduce::Reducer,
};

/// The objects of a manifest as upserts. They must be good.
fn upserts(yaml: &str) -> Vec<Change> {
    let parsed = manifest::parse(yaml, Format::Yaml, &mut Reducer::new("cluster.local")).unwrap();
    assert_eq!(parsed.errors, []);
    parsed
        .objects
        .into_iter()
        .map(|parsed| Change::Upsert(parsed.object))
        .collect()
}

fn namespace(name: &str, metadata: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, {metadata}}}}}\n")
}

fn node(name: &str, metadata: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, {metadata}}}}}\n")
}

/// A pod of namespace `shop` on node `a`.
fn pod(name: &str, address: &str, metadata: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, {metadata}}}, \
         spec: {{nodeName: a, containers: [{{ports: [{{name: http, containerPort: 8080}}]}}]}}, \
         status: {{podIP: '{address}', hostIP: 192.0.2.1, {more}}}}}\n"
    )
}

fn service(spec: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: cart}}, \
         spec: {{{spec}}}}}\n"
    )
}

fn slice(name: &str, endpoints: &str) -> String {
    format!(
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: \
         {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: cart}}}}, \
         ports: [{{name: web, port: 8080}}], endpoints: [{endpoints}]}}\n"
    )
}

fn gateway(name: &str, serves: &str, annotations: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{namespace: shop, \
         name: {name}, labels: {{istio.io/waypoint-for: {serves}}}, annotations: {{{annotations}}}}}, \
         spec: {{gatewayClassName: ambit-waypoint, \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}}}\n"
    )
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    ObjectKey {
        kind,
        name: ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        },
    }
}

fn remove(kind: Kind, name: &str) -> Vec<Change> {
    vec![Change::Remove(key(kind, name))]
}

fn holder(snapshot: &Snapshot, address: &str) -> Option<String> {
    let holder = snapshot.workload_by_address(address.parse().unwrap());
    holder.map(|workload| workload.name.name.to_string())
}

/// The one workload there is.
fn only(store: &Store) -> Arc<Workload> {
    let snapshot = store.snapshot();
    let mut workloads = snapshot.workloads();
    let workload = workloads.next().unwrap();
    assert!(workloads.next().is_none());
    Arc::clone(workload)
}

#[test]
fn pods_label_wins_over_its_namespaces_in_any_order_of_arrival() {
    let (yes, no) = (
        "labels: {ambit.dev/mesh: enabled}",
        "labels: {ambit.dev/mesh: disabled}",
    );
    let cases = [
        ("", "", Enrolment::NotLabelled),
        (yes, "", Enrolment::Enrolled),
        (no, "", Enrolment::Disabled),
        (yes, no, Enrolment::Disabled),
        (no, yes, Enrolment::Enrolled),
        ("", yes, Enrolment::Enrolled),
        (
            "labels: {istio.io/dataplane-mode: ambient}",
            no,
            Enrolment::Disabled,
        ),
        (
            no,
            "labels: {istio.io/dataplane-mode: ambient}",
            Enrolment::Enrolled,
        ),
    ];
    for (of_namespace, of_pod, expected) in cases {
        let (namespace, pod) = (
            namespace("shop", of_namespace),
            pod("p", "10.0.0.1", of_pod, ""),
        );
        for order in [[&namespace, &pod], [&pod, &namespace]] {
            let store = Store::default();
            order.iter().for_each(|yaml| store.apply(upserts(yaml)));
            assert_eq!(only(&store).enrolment, expected, "{of_namespace} {of_pod}");
        }
    }
}

#[test]
fn pod_follows_its_namespace_and_forgets_it() {
    let store = Store::default();
    store.apply(upserts(&pod("p", "10.0.0.1", "", "")));
    assert_eq!(only(&store).enrolment, Enrolment::NotLabelled);
    store.apply(upserts(&namespace(
        "shop",
        "labels: {ambit.dev/mesh: enabled}",
    )));
    assert_eq!(only(&store).enrolment, Enrolment::Enrolled);
    store.apply(remove(Kind::Namespace, "shop"));
    assert_eq!(only(&store).enrolment, Enrolment::NotLabelled);
}

#[test]
fn exclusions_of_pod_and_namespace_add_up() {
    let store = Store::default();
    let ports = |list: &str| format!("annotations: {{ambit.dev/exclude-outbound-ports: '{list}'}}");
    store.apply(upserts(&pod("p", "10.0.0.1", &ports("443,80"), "")));
    assert_eq!(only(&store).exclusions.outbound_ports, [80, 443]);
    store.apply(upserts(&namespace("shop", &ports("443,25"))));
    assert_eq!(only(&store).exclusions.outbound_ports, [25, 80, 443]);
    store.apply(upserts(&pod("p", "10.0.0.1", "", "")));
    assert_eq!(only(&store).exclusions.outbound_ports, [25, 443]);
}

#[test]
fn node_annotation_moves_the_tunnels_of_its_pods() {
    let store = Store::default();
    store.apply(upserts(&pod("p", "10.0.0.1", "", "")));
    assert_eq!(only(&store).tunnel, Tunnel::NodeAgent);
    store.apply(upserts(&node("b", "annotations: {ambit.dev/tunnel: pod}")));
    assert_eq!(only(&store).tunnel, Tunnel::NodeAgent);
    store.apply(upserts(&node("a", "annotations: {ambit.dev/tunnel: pod}")));
    assert_eq!(only(&store).tunnel, Tunnel::PodAddress);
    store.apply(remove(Kind::Node, "a"));
    assert_eq!(only(&store).tunnel, Tunnel::NodeAgent);
}

#[test]
fn pod_is_found_by_uid_address_and_node_until_it_ends() {
    let store = Store::default();
    store.apply(upserts(&pod("p", "10.0.0.1", "uid: u", "")));
    let snapshot = store.snapshot();
    let workload = only(&store);
    assert_eq!(snapshot.workload(&workload.uid), Some(&workload));
    assert_eq!(holder(&snapshot, "10.0.0.1").as_deref(), Some("p"));
    assert_eq!(
        snapshot.local_workloads("a").collect::<Vec<_>>(),
        [&workload]
    );

    store.apply(upserts(&pod("p", "10.0.0.1", "uid: u", "phase: Succeeded")));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.workloads().count(), 0);
    assert_eq!(snapshot.local_workloads("a").count(), 0);
    assert_eq!(holder(&snapshot, "10.0.0.1"), None);
}

#[test]
fn newer_pod_has_a_contested_address() {
    let old = "startTime: '2026-01-01T00:00:00Z'";
    let new = "startTime: '2026-01-01T00:00:01Z'";
    let deleted = "deletionTimestamp: '2026-01-01T00:00:02Z'";
    let cases = [
        ("later start", ("", old), ("", new), "two"),
        (
            "later start, whoever comes first",
            ("", new),
            ("", old),
            "one",
        ),
        ("later arrival", ("", ""), ("", ""), "two"),
        ("not being deleted", ("", old), (deleted, new), "one"),
    ];
    for (reason, (metadata_one, status_one), (metadata_two, status_two), winner) in cases {
        let store = Store::default();
        store.apply(upserts(&pod("one", "10.0.0.1", metadata_one, status_one)));
        store.apply(upserts(&pod("two", "10.0.0.1", metadata_two, status_two)));
        let snapshot = store.snapshot();
        assert_eq!(
            holder(&snapshot, "10.0.0.1").as_deref(),
            Some(winner),
            "{reason}"
        );
        let (_, claimants) = snapshot.contested_addresses().next().unwrap();
        assert_eq!(
            (&*claimants[0].name, claimants.len()),
            (winner, 2),
            "{reason}"
        );

        let loser = if winner == "one" { "two" } else { "one" };
        store.apply(remove(Kind::Pod, &format!("shop/{winner}")));
        let snapshot = store.snapshot();
        assert_eq!(
            holder(&snapshot, "10.0.0.1").as_deref(),
            Some(loser),
            "{reason}"
        );
        assert_eq!(snapshot.contested_addresses().count(), 0);
    }
}

#[test]
fn address_passes_on_as_soon_as_its_holder_is_being_deleted() {
    let store = Store::default();
    let started = "startTime: '2026-01-01T00:00:00Z'";
    store.apply(upserts(
        &(pod("one", "10.0.0.1", "uid: u", started) + &pod("two", "10.0.0.1", "", "")),
    ));
    assert_eq!(
        holder(&store.snapshot(), "10.0.0.1").as_deref(),
        Some("one")
    );
    let mut updates = store.subscribe();
    let deleted = "uid: u, deletionTimestamp: '2026-01-01T00:00:02Z'";
    store.apply(upserts(&pod("one", "10.0.0.1", deleted, started)));
    let update = updates.try_recv().unwrap();
    let [
        WorkloadChange {
            after: Some(one), ..
        },
    ] = &*update.workloads
    else {
        panic!("{:?}", update.workloads)
    };
    assert_eq!((&*one.name.name, one.terminating), ("one", true));
    let [
        AddressChange {
            before: Some(before),
            after: Some(after),
            ..
        },
    ] = &*update.addresses
    else {
        panic!("{:?}", update.addresses)
    };
    assert_eq!((&*before.name.name, &*after.name.name), ("one", "two"));
}

#[test]
fn host_network_pods_claim_no_address() {
    let store = Store::default();
    let host = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, \
             spec: {{hostNetwork: true}}, status: {{podIP: 192.0.2.1, hostIP: 192.0.2.1}}}}\n"
        )
    };
    store.apply(upserts(&(host("one") + &host("two"))));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.workloads().count(), 2);
    assert_eq!(holder(&snapshot, "192.0.2.1"), None);
    assert_eq!(snapshot.contested_addresses().count(), 0);
}

#[test]
fn new_life_of_a_pod_shows_as_one_that_went_and_one_that_came() {
    let store = Store::default();
    store.apply(upserts(&pod("p", "10.0.0.1", "uid: u1", "")));
    let mut updates = store.subscribe();
    store.apply(upserts(&pod("p", "10.0.0.1", "uid: u2", "")));
    let update = updates.try_recv().unwrap();
    let uid = |workload: &Option<Arc<Workload>>| workload.as_ref().map(|w| w.uid.to_string());
    let seen: Vec<_> = update
        .workloads
        .iter()
        .map(|change| (uid(&change.before), uid(&change.after)))
        .collect();
    assert_eq!(seen, [(Some("u1".into()), None), (None, Some("u2".into()))]);
    assert_eq!(update.snapshot.workloads().count(), 1);
}

#[test]
fn second_pod_with_a_uid_is_known_by_its_name() {
    let store = Store::default();
    store.apply(upserts(&pod("one", "10.0.0.1", "uid: u", "")));
    store.apply(upserts(&pod("two", "10.0.0.2", "uid: u", "")));
    let snapshot = store.snapshot();
    let mut uids: Vec<_> = snapshot
        .workloads()
        .map(|workload| workload.uid.to_string())
        .collect();
    uids.sort();
    assert_eq!(uids, ["shop/two@10.0.0.2", "u"]);
}

#[test]
fn update_tells_all_that_changed_once() {
    let store = Store::default();
    let mut updates = store.subscribe();
    let service =
        service("clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{port: 80, name: web}]");
    let all = namespace("shop", "labels: {ambit.dev/mesh: enabled}")
        + &pod("p", "10.0.0.1", "labels: {app: cart}", "")
        + &service
        + "---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: m}}";
    store.apply(upserts(&all));
    let update = updates.try_recv().unwrap();
    let counts = (
        update.workloads.len(),
        update.addresses.len(),
        update.services.len(),
    );
    assert_eq!(
        (
            counts,
            update.policies_changed,
            update.snapshot.generation()
        ),
        ((1, 1, 1), true, 1)
    );
    assert_eq!(
        update.services[0].after.as_ref().unwrap().endpoints.len(),
        1
    );
    assert!(updates.try_recv().is_err());
}

#[test]
fn nothing_is_published_if_nothing_came_of_the_changes() {
    let store = Store::default();
    let all =
        namespace("shop", "") + &pod("p", "10.0.0.1", "", "") + &service("") + &slice("s", "");
    store.apply(upserts(&all));
    let (before, mut updates) = (store.snapshot(), store.subscribe());
    store.apply(upserts(&all));
    store.apply(remove(Kind::Pod, "shop/unknown"));
    store.apply(remove(Kind::Pod, "shop/p").into_iter().chain(upserts(&all)));
    assert!(updates.try_recv().is_err());
    assert!(Arc::ptr_eq(&before, &store.snapshot()));
}
