use super::*;
use crate::discovery::{
    manifest::{self, Format},
    reduce::Reducer,
    store::Change,
};

const AGENTS: &str = "system:serviceaccount:ambit-system:ambit-node";
const POD: &str = "authentication.kubernetes.io/pod-uid";
const NODE: &str = "authentication.kubernetes.io/node-name";

const OBJECTS: &str = "
{apiVersion: v1, kind: Pod, metadata: {namespace: ambit-system, name: agent, uid: u1},
 spec: {nodeName: a, hostNetwork: true}, status: {podIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: w-0, uid: u3},
 spec: {nodeName: b, serviceAccountName: w}, status: {podIP: 10.0.0.1}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: shop, name: w},
 spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: shop, name: i},
 spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
";

/// A store that knows an agent's pod, of uid `u1`, on node a, and a waypoint's, of uid `u3`, on node b.
fn store() -> Store {
    let mut reducer = Reducer::new("cluster.local");
    let parsed = manifest::parse(OBJECTS, Format::Yaml, &mut reducer).unwrap();
    let store = Store::default();
    let objects = parsed.objects.into_iter();
    store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
    store
}

fn review(audience: &str, user: &str, extra: &[(&str, &str)]) -> TokenReviewStatus {
    let one = |(key, value): &(&str, &str)| ((*key).to_owned(), vec![(*value).to_owned()]);
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec![audience.to_owned()]),
        user: Some(UserInfo {
            username: Some(user.to_owned()),
            extra: Some(extra.iter().map(one).collect()),
            ..UserInfo::default()
        }),
        error: None,
    }
}

#[test]
fn a_caller_is_the_node_of_the_pod_that_the_token_is_bound_to() {
    let agent = |extra: &[_]| review(AUDIENCE, AGENTS, extra);
    let unknown = TokenReviewStatus {
        authenticated: Some(false),
        error: Some("token expired".into()),
        ..agent(&[(POD, "u1")])
    };
    let unchecked = TokenReviewStatus {
        audiences: None,
        ..agent(&[(POD, "u1")])
    };
    let other = "system:serviceaccount:shop:cart";
    let snapshot = store().snapshot();
    for (status, expected) in [
        (agent(&[(POD, "u1")]), Ok("a")),
        (agent(&[(POD, "u1"), (NODE, "a")]), Ok("a")),
        (agent(&[(POD, "u1"), (NODE, "b")]), Err("its pod runs on a")),
        (agent(&[(POD, "u2"), (NODE, "a")]), Err("isn't known yet")),
        (agent(&[(NODE, "a")]), Err("isn't bound to a pod")),
        (agent(&[]), Err("isn't bound to a pod")),
        (unknown, Err("token expired")),
        (unchecked, Err("isn't for audience ambit-ca")),
        (
            review("https://kubernetes.default.svc", AGENTS, &[(POD, "u1")]),
            Err("isn't for audience ambit-ca"),
        ),
        (
            review(AUDIENCE, other, &[(POD, "u1")]),
            Err("neither the service account of agents"),
        ),
        (TokenReviewStatus::default(), Err("doesn't know the token")),
    ] {
        let told = format!("{status:?}");
        match (caller(status, AGENTS, &snapshot), expected) {
            (Ok(caller), Ok(node)) => assert_eq!(caller.node, node, "{told}"),
            (Err(error), Err(reason)) => {
                assert!(error.to_string().contains(reason), "{told}: {error}");
            }
            (found, _) => panic!("{told}: {found:?}"),
        }
    }
}

#[test]
fn a_caller_is_a_waypoint_by_the_account_of_a_gateway_of_our_class() {
    let waypoint = CallerRole::Waypoint(ObjectName {
        namespace: "shop".into(),
        name: "w".into(),
    });
    let nobody = "neither the service account of agents";
    let audience = "https://kubernetes.default.svc";
    let snapshot = store().snapshot();
    for (audience, account, extra, expected) in [
        (
            AUDIENCE,
            "ambit-system:ambit-node",
            &[(POD, "u1")][..],
            Ok(("a", CallerRole::Agent)),
        ),
        (AUDIENCE, "shop:w", &[(POD, "u3")], Ok(("b", waypoint))),
        // Another class, no Gateway, another namespace, an agents' name elsewhere, and no account at all.
        (AUDIENCE, "shop:i", &[(POD, "u3")], Err(nobody)),
        (AUDIENCE, "shop:cart", &[(POD, "u3")], Err(nobody)),
        (AUDIENCE, "street:w", &[(POD, "u3")], Err(nobody)),
        (AUDIENCE, "shop:ambit-node", &[(POD, "u1")], Err(nobody)),
        (AUDIENCE, "shop/w", &[(POD, "u3")], Err(nobody)),
        // A waypoint's token is bound and meant for us, as an agent's is.
        (
            audience,
            "shop:w",
            &[(POD, "u3")],
            Err("isn't for audience ambit-ca"),
        ),
        (AUDIENCE, "shop:w", &[], Err("isn't bound to a pod")),
        (AUDIENCE, "shop:w", &[(POD, "u4")], Err("isn't known yet")),
        (
            AUDIENCE,
            "shop:w",
            &[(POD, "u3"), (NODE, "a")],
            Err("its pod runs on b"),
        ),
    ] {
        let user = format!("system:serviceaccount:{account}");
        let found = caller(review(audience, &user, extra), AGENTS, &snapshot);
        match (found, expected) {
            (Ok(found), Ok((node, role))) => {
                let expected = Caller {
                    node: node.to_owned(),
                    role,
                };
                assert_eq!(found, expected, "{account} {extra:?}");
            }
            (Err(error), Err(reason)) => {
                assert!(error.to_string().contains(reason), "{account}: {error}");
            }
            (found, _) => panic!("{account} {extra:?}: {found:?}"),
        }
    }
}
