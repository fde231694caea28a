use std::sync::Arc;

use super::{
    testing::{MadeUp, certificate},
    *,
};
use crate::discovery::testing::snapshot;

/// Nodes a and b; namespace `shop` takes part, `street` doesn't.
const MESH: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {ambit.dev/mesh: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: street}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-1, uid: web-1, labels: {app: web},
 ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true, uid: u}]},
 spec: {nodeName: a, serviceAccountName: web}, status: {podIP: 10.1.0.1, hostIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: near, uid: near},
 spec: {nodeName: a}, status: {podIP: 10.1.0.2, hostIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: far, uid: far, labels: {app: far}},
 spec: {nodeName: b}, status: {podIP: 10.1.1.1, hostIP: 192.0.2.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: further, uid: further, labels: {app: further}},
 spec: {nodeName: b}, status: {podIP: 10.1.1.2, hostIP: 192.0.2.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: left-out, uid: left-out,
 labels: {ambit.dev/mesh: disabled}}, spec: {nodeName: a}, status: {podIP: 10.1.0.3, hostIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: picky, uid: picky,
 annotations: {ambit.dev/exclude-outbound-ports: '81'}},
 spec: {nodeName: a}, status: {podIP: 10.1.0.4, hostIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: street, name: passer-by, uid: passer-by},
 spec: {nodeName: a}, status: {podIP: 10.1.0.9, hostIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: two},
 spec: {clusterIP: 10.96.0.1, selector: {app: far}, ports: [{name: http, port: 80}, {name: raw, port: 81}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {namespace: shop, name: two-1, labels: {kubernetes.io/service-name: two}},
 ports: [{name: http, port: 8080}, {name: raw, port: 8081}],
 endpoints: [{addresses: [10.1.1.1], nodeName: b}, {addresses: [10.1.1.2], nodeName: b}]}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: empty},
 spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: guarded, labels: {ambit.dev/use-waypoint: w}},
 spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: shop, name: w},
 spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {namespace: shop, name: no-web},
 spec: {action: DENY, selector: {matchLabels: {app: further}},
 rules: [{from: [{source: {principals: ['cluster.local/ns/shop/sa/web']}}]}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {namespace: shop, name: strict},
 spec: {mtls: {mode: STRICT}}}
";

fn mesh() -> Arc<Snapshot> {
    snapshot(MESH)
}

fn ask(source: &str, destination: &str) -> Result<Question, String> {
    Question::parse(&mesh(), "a", source, destination).map_err(|error| error.to_string())
}

async fn explained(facts: &MadeUp, source: &str, destination: &str) -> Explanation {
    let question = ask(source, destination).unwrap();
    explain(&mesh(), facts, &question).await
}

/// The text of the step about a subject.
fn said<'a>(explanation: &'a Explanation, subject: &str) -> &'a str {
    let mut steps = explanation.steps.iter();
    let step = steps.find(|step| step.subject == subject);
    &step
        .unwrap_or_else(|| panic!("{subject}: {explanation:#?}"))
        .text
}

#[test]
fn ends_are_found_by_whatever_people_call_them() {
    for (source, destination, expected) in [
        ("shop/web-1", "shop/two:80", "shop/web-1 -> shop/two:80"),
        ("shop/web", "two.shop:http", "shop/web-1 -> shop/two:80"),
        (
            "10.1.0.1",
            "two.shop.svc.cluster.local:raw",
            "shop/web-1 -> shop/two:81",
        ),
        (
            "::ffff:10.1.0.1",
            "10.96.0.1:80",
            "shop/web-1 -> shop/two:80",
        ),
        ("192.0.2.77", "shop/empty", "192.0.2.77 -> shop/empty:80"),
        ("shop/web-1", "shop/far:22", "shop/web-1 -> shop/far:22"),
        ("shop/web-1", "10.1.1.1:22", "shop/web-1 -> shop/far:22"),
        (
            "shop/web-1",
            "[2001:db8::1]:443",
            "shop/web-1 -> [2001:db8::1]:443",
        ),
    ] {
        let asked = ask(source, destination).unwrap();
        let understood = format!("{} -> {}", asked.source, asked.destination);
        assert_eq!(understood, expected);
    }
}

#[test]
fn a_question_that_isnt_understood_is_answered_with_how_to_ask() {
    for (source, destination, expected) in [
        (
            "web",
            "shop/two:80",
            "source `web`: write NAMESPACE/NAME, or an address",
        ),
        (
            "shop/nobody",
            "shop/two:80",
            "source `shop/nobody`: there is no pod, nor a workload with pods, of that name; `ambit \
             workloads -n shop` and `ambit services -n shop` list what there is",
        ),
        (
            "shop/web",
            "shop/two",
            "destination `shop/two`: say which port, as in `shop/two:80` (it has 80 (http), 81 (raw))",
        ),
        (
            "shop/web",
            "shop/two:82",
            "service shop/two has no port 82; it has 80 (http), 81 (raw)",
        ),
        (
            "shop/web",
            "shop/far",
            "destination `shop/far`: say which port, as in `shop/far:80`",
        ),
        (
            "shop/web",
            "shop/far:http",
            "destination port `http`: write a number from 1 to 65535; only services have named ports",
        ),
        (
            "shop/web",
            "example.com:80",
            "destination `com/example`: there is no service or pod, nor",
        ),
        (
            "shop/web",
            "a.example.com:80",
            "destination `a.example.com`: write NAMESPACE/NAME, or an address",
        ),
    ] {
        let error = ask(source, destination).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_connection_to_another_node_is_followed_to_its_agent() {
    let facts = MadeUp::default();
    let told = explained(&facts, "shop/web-1", "shop/far:80").await;
    assert_eq!(told.fails_at, None);
    for (subject, part) in [
        (
            "source",
            "pod shop/web-1 on node a, 10.1.0.1, spiffe://cluster.local/ns/shop/sa/web",
        ),
        ("source enrolled", "yes, by the label of namespace shop"),
        (
            "capture",
            "interface veth-web-1 (index 5), by from_pod at its TCX ingress",
        ),
        ("destination", "pod shop/far on node b"),
        ("route", "HBONE to 192.0.2.2:15008 on node b"),
        (
            "policy",
            "no AuthorizationPolicy is for the destination; PeerAuthentication shop/strict says",
        ),
        ("certificate", "until 2999"),
        (
            "port 15008",
            "192.0.2.2:15008 (the agent of node b) answers and proves to be spiffe://",
        ),
    ] {
        assert!(said(&told, subject).contains(part), "{subject}: {told:#?}");
    }
    let probes = facts.probes.lock().unwrap();
    assert!(
        matches!(&probes[..], [Probe::Tunnel(key)] if *key.uid.0 == *"far"),
        "{probes:?}"
    );
}

#[tokio::test]
async fn the_first_step_that_fails_is_named() {
    let silence = MadeUp {
        reached: Err(ProbeError::Silence(3)),
        ..MadeUp::default()
    };
    let refused = MadeUp {
        reached: Err(ProbeError::Refused),
        ..MadeUp::default()
    };
    let unbound = MadeUp {
        unbound: Some("no interface has its address"),
        ..MadeUp::default()
    };
    let expired = MadeUp {
        certificate: Some(certificate(
            Some("2000-01-01T00:00:00Z"),
            Some("no control"),
        )),
        ..MadeUp::default()
    };
    let well = MadeUp::default();
    for (facts, source, destination, subject, part) in [
        (
            &silence,
            "shop/web",
            "shop/far:80",
            "port 15008",
            "NetworkPolicy or firewall blocks 15008",
        ),
        (
            &refused,
            "shop/web",
            "shop/far:80",
            "port 15008",
            "refuses: nobody listens there",
        ),
        (
            &unbound,
            "shop/web",
            "shop/far:80",
            "capture",
            "no interface has its address",
        ),
        (
            &expired,
            "shop/web",
            "shop/far:80",
            "certificate",
            "expired at 2000-01-01T00:00:00Z: no control",
        ),
        (
            &well,
            "shop/web",
            "shop/further:80",
            "policy",
            "shop/no-web rules[0]",
        ),
        (
            &well,
            "shop/web",
            "shop/two:80",
            "policy",
            "(1 of 2 endpoints refuse, as 10.1.1.2:8080)",
        ),
        (
            &well,
            "shop/web",
            "shop/empty",
            "service",
            "shop/empty has no ready endpoint for port 80",
        ),
        (
            &well,
            "shop/web",
            "shop/guarded",
            "route",
            "no endpoint of waypoint shop/w is ready",
        ),
        (
            &well,
            "street/passer-by",
            "shop/far:80",
            "policy",
            "shop/strict demands mutual TLS",
        ),
        (
            &well,
            "192.0.2.77",
            "shop/far:80",
            "policy",
            "shop/strict demands mutual TLS",
        ),
        (
            &well,
            "shop/left-out",
            "shop/two:80",
            "policy",
            "shop/strict demands mutual TLS",
        ),
        (
            &well,
            "shop/picky",
            "shop/two:81",
            "policy",
            "shop/strict demands mutual TLS",
        ),
    ] {
        let told = explained(facts, source, destination).await;
        assert_eq!(told.fails_at.as_deref(), Some(subject), "{told:#?}");
        assert!(said(&told, subject).contains(part), "{told:#?}");
        let mut steps = told.steps.iter();
        let failing = steps.find(|step| step.subject == subject).unwrap();
        assert!(failing.cure.is_some(), "{failing:?}");
    }
}

#[tokio::test]
async fn between_pods_of_one_node_the_kernels_verdict_is_told() {
    for (verdict, part) in [
        (KernelVerdict::Off, "--same-node proxy"),
        (KernelVerdict::Asks(7), "nothing decided in generation 7"),
        (
            KernelVerdict::Passes(7),
            "pass from pod to pod without the agent",
        ),
    ] {
        let facts = MadeUp {
            verdict,
            ..MadeUp::default()
        };
        let told = explained(&facts, "shop/web", "shop/near:80").await;
        assert_eq!(said(&told, "route"), "both pods are on node a");
        assert!(said(&told, "kernel verdict").contains(part), "{told:#?}");
        assert!(facts.probes.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_another_node_knows_is_asked_for_there() {
    let facts = MadeUp {
        reached: Ok(Reached::Listener),
        ..MadeUp::default()
    };
    let told = explained(&facts, "shop/far", "shop/web-1:80").await;
    assert_eq!(told.fails_at, None);
    let unknown = |step: &&Step| step.state == State::Unknown;
    let subjects: Vec<_> = told.steps.iter().filter(unknown).collect();
    let subjects: Vec<_> = subjects.iter().map(|step| &*step.subject).collect();
    assert_eq!(subjects, ["capture", "certificate"]);
    let probes = facts.probes.lock().unwrap();
    assert!(matches!(&probes[..], [Probe::Listener(_)]), "{probes:?}");
}

#[tokio::test]
async fn what_isnt_of_the_mesh_is_left_as_it_is() {
    let told = explained(&MadeUp::default(), "shop/web", "203.0.113.1:443").await;
    assert_eq!(told.fails_at, None);
    assert!(
        said(&told, "route").contains("isn't of the mesh"),
        "{told:#?}"
    );
    assert!(said(&told, "policy").contains("none is asked"), "{told:#?}");
}
