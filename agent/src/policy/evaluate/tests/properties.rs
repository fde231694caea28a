//! What must hold of any policies and any connection.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{Client, httpbin_in, judge};
use crate::{
    identity::Identity,
    policy::{
        AuthorizationPolicy, Connection, Denied, DryRun, PolicySet, dry_run, model::Action, parse,
    },
};

/// Fields and values that often meet, so that rules match about as often as not.
fn source() -> impl Strategy<Value = Value> {
    select(vec![
        json!({ "principals": ["*"] }),
        json!({ "principals": ["cluster.local/ns/a/*"] }),
        json!({ "notPrincipals": ["*/sa/x", "*/sa/y"] }),
        json!({ "namespaces": ["a"] }),
        json!({ "notNamespaces": ["a"], "ipBlocks": ["10.0.0.0/31"] }),
        json!({ "serviceAccounts": ["a/x", "y"] }),
        json!({ "notServiceAccounts": ["a/x"] }),
        json!({ "ipBlocks": ["10.0.0.1"] }),
        json!({ "notIpBlocks": ["10.0.0.1"] }),
        json!({ "requestPrincipals": ["*"] }),
    ])
    .prop_map(|source| json!({ "source": source }))
}

fn operation() -> impl Strategy<Value = Value> {
    select(vec![
        json!({ "ports": ["80"] }),
        json!({ "notPorts": ["80"] }),
        json!({ "ports": ["80"], "methods": ["GET"] }),
        json!({ "paths": ["/"] }),
    ])
    .prop_map(|operation| json!({ "operation": operation }))
}

fn condition() -> impl Strategy<Value = Value> {
    select(vec![
        json!({ "key": "source.ip", "values": ["10.0.0.0/31"] }),
        json!({ "key": "source.namespace", "notValues": ["a"] }),
        json!({ "key": "destination.port", "values": ["80", "81"] }),
        json!({ "key": "request.headers[a]", "values": ["b"] }),
    ])
}

fn rule() -> impl Strategy<Value = Value> {
    (
        vec(source(), 0..3),
        vec(operation(), 0..2),
        vec(condition(), 0..2),
    )
        .prop_map(|(from, to, when)| {
            let clauses = [("from", from), ("to", to), ("when", when)];
            clauses
                .into_iter()
                .filter(|(_, list)| !list.is_empty())
                .map(|(clause, list)| (clause.to_owned(), Value::from(list)))
                .collect()
        })
}

/// Policies with names of their own, in the server's namespace, a root namespace or another.
fn some_policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let parts = (
        select(vec!["foo", "istio-system", "other"]),
        select(vec!["ALLOW", "DENY", "AUDIT"]),
        vec(rule(), 0..3),
        select(vec!["httpbin", "other"]),
        any::<bool>(),
    );
    vec(parts, 0..6).prop_map(|policies| {
        let policies = policies.into_iter().enumerate();
        policies
            .map(|(index, (namespace, action, rules, app, selects))| {
                let mut spec = json!({ "action": action, "rules": rules });
                if selects {
                    spec["selector"] = json!({ "matchLabels": { "app": app } });
                }
                policy(namespace, &format!("p{index}"), spec)
            })
            .collect()
    })
}

fn policy(namespace: &str, name: &str, spec: Value) -> AuthorizationPolicy {
    let metadata = json!({ "namespace": namespace, "name": name });
    parse::authorization_policy(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn client() -> impl Strategy<Value = Client> {
    let identity = (select(vec!["a", "b", "foo"]), select(vec!["x", "y"]))
        .prop_map(|(namespace, account)| Identity::new("cluster.local", namespace, account));
    (option::weighted(0.8, identity), 0..3_u8, 80..82_u16).prop_map(|(identity, host, port)| {
        Client {
            identity,
            address: [10, 0, 0, host].into(),
            port,
        }
    })
}

fn set<'a>(policies: impl IntoIterator<Item = &'a AuthorizationPolicy>) -> PolicySet {
    let mut set = PolicySet::default();
    for policy in policies {
        set.insert_authorization(policy.clone());
    }
    set
}

fn with(policies: &[AuthorizationPolicy], another: AuthorizationPolicy) -> PolicySet {
    set(policies.iter().chain([&another]))
}

proptest! {
    #[test]
    fn the_order_of_arrival_changes_nothing(
        (policies, shuffled) in some_policies()
            .prop_flat_map(|policies| (Just(policies.clone()), Just(policies).prop_shuffle())),
        client in client(),
    ) {
        let server = httpbin_in("foo");
        prop_assert_eq!(
            judge(&set(&policies), &client, &server),
            judge(&set(&shuffled), &client, &server)
        );
    }

    #[test]
    fn a_deny_that_matches_always_wins(policies in some_policies(), client in client()) {
        let deny = policy("foo", "deny", json!({ "action": "DENY", "rules": [{}] }));
        let verdict = judge(&with(&policies, deny), &client, &httpbin_in("foo"));
        prop_assert!(matches!(verdict, Err(Denied::ByPolicy { .. })), "{:?}", verdict);
    }

    #[test]
    fn another_deny_policy_never_allows_more(
        policies in some_policies(),
        rules in vec(rule(), 0..3),
        client in client(),
    ) {
        let server = httpbin_in("foo");
        let deny = policy("foo", "deny", json!({ "action": "DENY", "rules": rules }));
        let before = judge(&set(&policies), &client, &server);
        let after = judge(&with(&policies, deny), &client, &server);
        prop_assert!(before.is_ok() || after.is_err(), "{:?} then {:?}", before, after);
    }

    #[test]
    fn an_allow_policy_that_matches_nothing_allows_only_what_another_allowed(
        policies in some_policies(),
        client in client(),
    ) {
        let server = httpbin_in("foo");
        let nothing = policy("foo", "nothing", json!({}));
        let before = judge(&set(&policies), &client, &server);
        let after = judge(&with(&policies, nothing), &client, &server);
        let by_rule = before.is_ok_and(|permit| permit.rule().is_some());
        prop_assert_eq!(after.is_ok(), by_rule);
    }

    #[test]
    fn http_fields_allow_no_more_and_deny_no_less(
        policies in some_policies(),
        client in client(),
    ) {
        let server = httpbin_in("foo");
        let asking = |action| {
            let mut policies = policies.clone();
            for policy in policies.iter_mut().filter(|policy| policy.action == action) {
                for rule in &mut policy.rules {
                    rule.http_fields.push("to[0].operation.methods".to_owned());
                }
            }
            judge(&set(&policies), &client, &server)
        };
        let before = judge(&set(&policies), &client, &server);
        prop_assert_eq!(asking(Action::Deny), before.clone());
        let by_rule = before.is_ok_and(|permit| permit.rule().is_some());
        prop_assert!(!(by_rule && asking(Action::Allow).is_ok()));
    }

    #[test]
    fn policies_for_others_change_nothing(policies in some_policies(), client in client()) {
        let server = httpbin_in("foo");
        let all = set(&policies);
        let for_it: Vec<_> = all.authorizations_for(&server).cloned().collect();
        let only = set(for_it.iter().map(AsRef::as_ref));
        prop_assert_eq!(judge(&all, &client, &server), judge(&only, &client, &server));
        prop_assert!(for_it.iter().all(|policy| &*policy.name.namespace != "other"));
    }

    #[test]
    fn a_dry_run_tells_what_enforcing_would_do_and_does_nothing(
        policies in some_policies(),
        dry in vec(any::<bool>(), 6),
        client in client(),
    ) {
        let server = httpbin_in("foo");
        let mut marked = policies.clone();
        for (policy, dry) in marked.iter_mut().zip(dry) {
            policy.dry_run = dry;
        }
        let enforced = set(marked.iter().filter(|policy| !policy.dry_run));
        let marked = set(&marked);
        prop_assert_eq!(judge(&marked, &client, &server), judge(&enforced, &client, &server));

        let connection = Connection {
            source: client.identity.as_ref(),
            source_address: client.address,
            destination: &server,
            destination_address: (server.addresses[0], client.port).into(),
            through: crate::policy::Through::None,
            request: None,
        };
        match (dry_run(&marked, &connection), judge(&set(&policies), &client, &server)) {
            (None, would) => prop_assert_eq!(judge(&marked, &client, &server), would),
            (Some(DryRun::WouldAllow(rule)), would) => {
                let permit = would.unwrap();
                prop_assert_eq!(rule.as_ref(), permit.rule());
            }
            (Some(DryRun::WouldDeny(denied)), would) => prop_assert_eq!(Err(denied), would),
        }
    }
}
