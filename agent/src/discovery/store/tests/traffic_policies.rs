//! Which TrafficPolicy is in force for what, and what is wrong with others; and zones.

use super::*;
use crate::discovery::reduce::Fault;

/// A policy of namespace `shop`, from its targets.
fn policy(name: &str, created: &str, targets: &str) -> String {
    let created = match created {
        "" => String::new(),
        second => format!(", creationTimestamp: '2026-01-01T00:00:{second}Z'"),
    };
    format!(
        "---\n{{apiVersion: ambit.dev/v1alpha1, kind: TrafficPolicy, \
         metadata: {{name: {name}, namespace: shop{created}}}, spec: {{targetRefs: [{targets}]}}}}\n"
    )
}

const CART: &str = "---\n{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, \
                    spec: {ports: [{name: http, port: 80}, {name: grpc, port: 81}]}}\n";
const ROUTES: &str = "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: cart, \
                      namespace: shop}, spec: {parentRefs: [{group: '', kind: Service, name: cart}], \
                      rules: [{name: slow}]}}\n";
const WHOLE: &str = "{kind: Service, name: cart}";
const HTTP: &str = "{kind: Service, name: cart, sectionName: http}";
const ROUTE: &str = "{kind: HTTPRoute, name: cart}";
const RULE: &str = "{kind: HTTPRoute, name: cart, sectionName: slow}";

fn cart() -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: "cart".into(),
    }
}

fn with(yaml: &str) -> Store {
    let store = Store::default();
    store.apply(upserts(yaml));
    store
}

/// The policies of ports 80 and 81, of the route, and of its rule `slow`; then problems with policies.
fn told(store: &Store) -> (Vec<String>, Vec<String>) {
    let (snapshot, cart) = (store.snapshot(), cart());
    let found = [
        snapshot.traffic_policy_of_service(&cart, 80),
        snapshot.traffic_policy_of_service(&cart, 81),
        snapshot.traffic_policy_of_route(RouteKind::Http, &cart, None),
        snapshot.traffic_policy_of_route(RouteKind::Http, &cart, Some("slow")),
        snapshot.traffic_policy_of_route(RouteKind::Grpc, &cart, None),
    ];
    let name = |policy: &Arc<crate::discovery::model::TrafficPolicy>| policy.name.name.to_string();
    let found = found.map(|policy| policy.map_or("-".to_owned(), name));
    // Routes have their own.
    let problems = snapshot
        .problems()
        .filter(|it| it.object.kind == Kind::TrafficPolicy);
    let problems = problems.map(|it| format!("{}: {}", it.object, it.error));
    (found.into(), problems.collect())
}

#[test]
fn a_policy_for_a_part_goes_before_one_for_the_whole_and_an_older_before_a_newer() {
    let newer = |target: &str, older: &str| {
        format!(
            "TrafficPolicy shop/b: spec.targetRefs[0]: {target} has an older policy already, \
             shop/{older}, which is in force: name another target, or remove one of the two"
        )
    };
    for (yaml, expected, problems) in [
        (policy("a", "", WHOLE), ["a", "a", "-", "-", "-"], vec![]),
        (policy("a", "", HTTP), ["a", "-", "-", "-", "-"], vec![]),
        (
            policy("a", "", WHOLE) + &policy("b", "", HTTP),
            ["b", "a", "-", "-", "-"],
            vec![],
        ),
        (policy("a", "", ROUTE), ["-", "-", "a", "a", "-"], vec![]),
        (
            policy("a", "", ROUTE) + &policy("b", "", RULE),
            ["-", "-", "a", "b", "-"],
            vec![],
        ),
        (
            policy("b", "30", WHOLE) + &policy("c", "20", WHOLE),
            ["c", "c", "-", "-", "-"],
            vec![newer("Service cart", "c")],
        ),
        (
            policy("a", "20", HTTP) + &policy("b", "20", HTTP),
            ["a", "-", "-", "-", "-"],
            vec![newer("port http of Service cart", "a")],
        ),
        (
            policy("a", "", &format!("{WHOLE}, {WHOLE}")),
            ["a", "a", "-", "-", "-"],
            vec![
                "TrafficPolicy shop/a: spec.targetRefs[1]: Service cart is named twice: remove one"
                    .to_owned(),
            ],
        ),
    ] {
        let store = with(&(CART.to_owned() + ROUTES + &yaml));
        let expected: Vec<String> = expected.map(str::to_owned).into();
        assert_eq!(told(&store), (expected, problems), "{yaml}");
    }
}

#[test]
fn policies_follow_every_change() {
    let store = with(&policy("a", "20", HTTP));
    let expect = |what: &str, found: &str, problem: &str| {
        let (all, problems) = told(&store);
        assert_eq!(all[0], found, "{what}");
        match problem {
            "" => assert_eq!(problems, Vec::<String>::new(), "{what}"),
            text => assert!(
                problems.iter().any(|it| it.contains(text)),
                "{what}: {problems:?}"
            ),
        }
    };
    expect(
        "without the service",
        "-",
        "there is no port http of Service cart in the policy's",
    );
    store.apply(upserts(&CART.replace("http", "web")));
    expect(
        "without the port",
        "-",
        "has no TCP port of the name \"http\"",
    );
    store.apply(upserts(CART));
    expect("with both", "a", "");
    store.apply(upserts(&policy("b", "10", HTTP)));
    expect(
        "an older one",
        "b",
        "TrafficPolicy shop/a: spec.targetRefs[0]: port http",
    );
    store.apply(remove(Kind::TrafficPolicy, "shop/b"));
    expect("without it", "a", "");
    store.apply(upserts(&policy("a", "20", WHOLE)));
    expect("for all ports", "a", "");
    store.apply(remove(Kind::TrafficPolicy, "shop/a"));
    expect("without any", "-", "");
}

#[test]
fn a_policy_of_what_is_not_there_says_so_until_it_is() {
    let edge = "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: cart, \
                namespace: shop}, spec: {parentRefs: [{name: edge}]}}\n";
    let missing = "there is no ";
    for (target, mends, expected) in [
        (WHOLE, CART, missing),
        (HTTP, CART, missing),
        (ROUTE, ROUTES, missing),
        (RULE, ROUTES, missing),
        (ROUTE, edge, missing),
        // Whoever serves it knows its rules.
        (RULE, edge, missing),
    ] {
        let store = with(&policy("a", "", target));
        let snapshot = store.snapshot();
        let problems: Vec<_> = snapshot.problems().collect();
        let [problem] = &problems[..] else {
            panic!("{target}: {problems:?}");
        };
        assert_eq!(problem.error.fault, Fault::TargetNotFound, "{target}");
        assert!(problem.error.reason.starts_with(expected), "{problem:?}");
        store.apply(upserts(&(CART.to_owned() + mends)));
        assert_eq!(told(&store).1, Vec::<String>::new(), "{target}");
    }
    let store = with(&(CART.to_owned() + ROUTES + &policy("a", "", RULE)));
    assert_eq!(told(&store).1, Vec::<String>::new());
    store.apply(upserts(&ROUTES.replace("slow", "fast")));
    let [problem] = &told(&store).1[..] else {
        panic!("{:?}", told(&store).1);
    };
    assert!(
        problem.contains("HTTPRoute shop/cart has no rule of the name \"slow\""),
        "{problem}"
    );
    store.apply(remove(Kind::HTTPRoute, "shop/cart"));
    assert!(told(&store).1[0].contains("there is no rule slow of HTTPRoute cart"));
}

#[test]
fn of_two_policies_for_one_target_the_newer_is_in_conflict() {
    let both = policy("b", "30", WHOLE) + &policy("c", "20", WHOLE);
    let store = with(&(CART.to_owned() + &both));
    let snapshot = store.snapshot();
    let faults: Vec<_> = snapshot.problems().map(|it| it.error.fault).collect();
    assert_eq!(faults, [Fault::Conflicted]);
}

#[test]
fn nothing_is_published_when_a_policy_comes_again_as_it_was() {
    let yaml = policy("a", "20", WHOLE);
    let store = with(&(CART.to_owned() + &yaml));
    let before = store.snapshot().generation();
    store.apply(upserts(&yaml));
    assert_eq!(store.snapshot().generation(), before);
}

#[test]
fn endpoints_have_the_zone_that_their_slice_says_or_else_their_node() {
    let node = |zone: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: a, labels: \
             {{topology.kubernetes.io/zone: {zone}}}}}}}\n"
        )
    };
    let selecting = "---\n{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, \
                     spec: {selector: {app: cart}, ports: [{port: 80}]}}\n";
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: shop, labels: \
               {app: cart}}, spec: {nodeName: a}, status: {podIPs: [{ip: 10.0.0.1}]}}\n";
    let store = with(&(node("z1") + selecting + pod));
    let zone = || {
        let snapshot = store.snapshot();
        let service = snapshot.service(&cart()).unwrap();
        service.endpoints[0].zone.as_deref().map(str::to_owned)
    };
    assert_eq!(zone().as_deref(), Some("z1"));
    store.apply(upserts(&node("z2")));
    assert_eq!(zone().as_deref(), Some("z2"));
    assert_eq!(
        store.snapshot().zone_of_node("a").map(|it| &**it),
        Some("z2")
    );
    store.apply(upserts(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: \
         {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}, \
         ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1], nodeName: a, zone: z3}]}",
    ));
    assert_eq!(zone().as_deref(), Some("z3"));
    store.apply(remove(Kind::Node, "/a"));
    assert_eq!(store.snapshot().zone_of_node("a"), None);
    assert_eq!(zone().as_deref(), Some("z3"));
}
