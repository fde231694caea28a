use super::*;
use crate::{
    discovery::model::{Enrolment, Exclusions, TelemetryNames, Tunnel},
    identity::Identity,
};

pub(in crate::capture) fn pod(name: &str, addresses: &[&str]) -> Arc<Workload> {
    let text: Arc<str> = Arc::from(name);
    Arc::new(Workload {
        uid: WorkloadUid(text.clone()),
        name: ObjectName {
            namespace: "shop".into(),
            name: text.clone(),
        },
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        node: "a".into(),
        node_addresses: Vec::new(),
        identity: Identity::new("cluster.local", "shop", text.clone()),
        enrolment: Enrolment::Enrolled,
        labels: Arc::default(),
        exclusions: Arc::new(Exclusions::default()),
        tunnel: Tunnel::NodeAgent,
        waypoint: None,
        ready: true,
        terminating: false,
        telemetry: Arc::new(TelemetryNames {
            workload: text.clone(),
            workload_type: "pod".into(),
            canonical_service: text.clone(),
            canonical_revision: "latest".into(),
            app: text.clone(),
            version: "latest".into(),
        }),
    })
}

fn claim(interface: u32, address: &str, evidence: Evidence) -> Claim {
    Claim {
        interface,
        address: address.parse().unwrap(),
        evidence,
    }
}

/// Binds, and gives the result as text: `3=x 4=y !z` where `!` marks a conflict.
fn bound(
    before: &[(u32, &str)],
    interfaces: &[u32],
    claims: &[Claim],
    pods: &[Arc<Workload>],
) -> String {
    let before = before
        .iter()
        .map(|(i, uid)| (*i, WorkloadUid((*uid).into())))
        .collect();
    let interfaces = interfaces.iter().copied().collect();
    let (bindings, conflicts) = bind(&before, &interfaces, claims, pods);
    let bindings = bindings
        .iter()
        .map(|(interface, uid)| format!("{interface}={uid}"));
    let conflicts = conflicts
        .iter()
        .map(|conflict| format!("!{}", conflict.workload.name));
    bindings.chain(conflicts).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pod_is_bound_by_any_of_its_addresses() {
    use Evidence::{HostRoute, PodNamespace};
    let pods = [pod("x", &["10.0.0.1", "fd00::1"])];
    assert_eq!(
        bound(&[], &[3], &[claim(3, "10.0.0.1", HostRoute)], &pods),
        "3=x"
    );
    assert_eq!(
        bound(&[], &[3], &[claim(3, "fd00::1", PodNamespace)], &pods),
        "3=x"
    );
    assert_eq!(
        bound(&[], &[3], &[claim(3, "10.0.0.2", HostRoute)], &pods),
        ""
    );
    // The interface is gone, or isn't a pod's.
    assert_eq!(
        bound(&[], &[4], &[claim(3, "10.0.0.1", HostRoute)], &pods),
        ""
    );
}

#[test]
fn a_host_route_outweighs_what_a_pod_gave_itself() {
    let pods = [pod("x", &["10.0.0.1"])];
    let claims = [
        claim(3, "10.0.0.1", Evidence::HostRoute),
        claim(4, "10.0.0.1", Evidence::PodNamespace),
    ];
    assert_eq!(bound(&[], &[3, 4], &claims, &pods), "3=x");
}

#[test]
fn doubt_binds_nothing() {
    use Evidence::PodNamespace;
    let x = pod("x", &["10.0.0.1"]);
    let y = pod("y", &["10.0.0.2"]);
    let two_interfaces = [
        claim(3, "10.0.0.1", PodNamespace),
        claim(4, "10.0.0.1", PodNamespace),
    ];
    assert_eq!(
        bound(&[], &[3, 4], &two_interfaces, std::slice::from_ref(&x)),
        "!x"
    );
    let two_pods = [
        claim(3, "10.0.0.1", PodNamespace),
        claim(3, "10.0.0.2", PodNamespace),
    ];
    assert_eq!(bound(&[], &[3], &two_pods, &[x, y]), "!x !y");
}

#[test]
fn a_bound_interface_cannot_claim_a_second_pod() {
    use Evidence::PodNamespace;
    let pods = [pod("x", &["10.0.0.1"]), pod("y", &["10.0.0.2"])];
    // The pod behind 3, bound as x, gives itself y's address.
    let claims = [
        claim(3, "10.0.0.1", PodNamespace),
        claim(3, "10.0.0.2", PodNamespace),
    ];
    assert_eq!(bound(&[(3, "x")], &[3], &claims, &pods), "3=x");
    // And y's own interface is still found.
    let claims = [
        claim(3, "10.0.0.2", PodNamespace),
        claim(4, "10.0.0.2", PodNamespace),
    ];
    assert_eq!(bound(&[(3, "x")], &[3, 4], &claims, &pods), "3=x 4=y");
}

#[test]
fn a_binding_ends_with_its_pod_or_its_interface() {
    use Evidence::HostRoute;
    let successor = [pod("z", &["10.0.0.1"])];
    let claims = [claim(3, "10.0.0.1", HostRoute)];
    assert_eq!(bound(&[(3, "x")], &[3], &claims, &successor), "3=z");
    assert_eq!(
        bound(&[(3, "x")], &[], &claims, &[pod("x", &["10.0.0.1"])]),
        ""
    );
}
