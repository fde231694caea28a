//! Several policies together, and the examples of Istio's documentation.

use super::{Client, httpbin_in, judge, plaintext, policies, policy_in, verdict, web};
use crate::{
    discovery::model::ObjectName,
    policy::{Connection, DryRun, PolicySet, Scope, dry_run},
};

/// Policies in YAML, and verdicts for clients and namespaces of the server.
#[track_caller]
fn check(yaml: &str, table: &[(Client, &str, &str)]) {
    let policies = policies(yaml);
    for (client, namespace, expected) in table {
        let verdict = verdict(&policies, client, &httpbin_in(namespace));
        assert_eq!(verdict, *expected, "{client:?} to {namespace}");
    }
}

#[test]
fn without_an_allow_policy_all_is_allowed() {
    check(
        "
metadata: {name: no-spam, namespace: foo}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [spam]}}]}]}
",
        &[
            (web(), "foo", "allowed"),
            (plaintext(), "foo", "allowed"),
            (
                web().of("cluster.local", "spam", "a"),
                "foo",
                "denied by foo/no-spam rules[0]",
            ),
            (web().of("cluster.local", "spam", "a"), "bar", "allowed"),
        ],
    );
}

/// "allow-nothing" and "allow-all" of the reference, and "deny-all" of the concepts page.
#[test]
fn no_rules_match_nothing_and_an_empty_rule_matches_everything() {
    for (spec, expected) in [
        ("{}", "not allowed"),
        ("{action: ALLOW}", "not allowed"),
        ("{rules: []}", "not allowed"),
        ("{selector: {matchLabels: {app: httpbin}}}", "not allowed"),
        ("{rules: [{}]}", "allowed by foo/p rules[0]"),
        ("{action: DENY}", "allowed"),
        ("{action: DENY, rules: [{}]}", "denied by foo/p rules[0]"),
        ("{action: AUDIT, rules: [{}]}", "allowed"),
        ("{action: AUDIT}", "allowed"),
    ] {
        let policies = policy_in("foo", "p", spec);
        for client in [web(), plaintext()] {
            assert_eq!(
                verdict(&policies, &client, &httpbin_in("foo")),
                expected,
                "{spec}"
            );
        }
    }
}

#[test]
fn deny_comes_before_allow_whatever_their_names() {
    for (allow, deny) in [("a", "z"), ("z", "a")] {
        let yaml = format!(
            "
metadata: {{name: {allow}, namespace: foo}}
spec: {{rules: [{{}}]}}
---
metadata: {{name: {deny}, namespace: foo}}
spec: {{action: DENY, rules: [{{from: [{{source: {{ipBlocks: [10.0.0.1]}}}}]}}]}}
"
        );
        check(
            &yaml,
            &[
                (web(), "foo", &format!("denied by foo/{deny} rules[0]")),
                (
                    web().at("10.0.0.2"),
                    "foo",
                    &format!("allowed by foo/{allow} rules[0]"),
                ),
            ],
        );
    }
}

#[test]
fn a_policy_reaches_its_namespace_its_selection_or_the_mesh() {
    let selects = "{selector: {matchLabels: {app: httpbin, version: v1}}}";
    let selects_not = "{selector: {matchLabels: {app: httpbin, version: v2}}}";
    for (namespace, spec, scope, foo, bar) in [
        ("foo", "{}", Scope::Namespace, false, true),
        ("foo", selects, Scope::Workloads, false, true),
        ("foo", selects_not, Scope::Workloads, true, true),
        ("foo", "{selector: {}}", Scope::Namespace, false, true),
        ("istio-system", "{}", Scope::Mesh, false, false),
        ("ambit-system", "{}", Scope::Mesh, false, false),
        ("istio-system", selects, Scope::Workloads, false, false),
        ("istio-system", selects_not, Scope::Workloads, true, true),
        (
            "foo",
            "{targetRef: {kind: Gateway, name: g}}",
            Scope::Waypoints,
            true,
            true,
        ),
        (
            "foo",
            "{targetRefs: [{kind: Service, name: s}]}",
            Scope::Waypoints,
            true,
            true,
        ),
        (
            "istio-system",
            "{targetRefs: [{kind: Service, name: s}]}",
            Scope::Waypoints,
            true,
            true,
        ),
    ] {
        let policies = policy_in(namespace, "p", spec);
        let policy = policies.authorizations().next().unwrap();
        assert_eq!(
            policies.authorization_scope(policy),
            scope,
            "{namespace} {spec}"
        );
        for (server, allowed) in [("foo", foo), ("bar", bar)] {
            let verdict = judge(&policies, &web(), &httpbin_in(server));
            assert_eq!(verdict.is_ok(), allowed, "{namespace} {spec} for {server}");
        }
    }
}

#[test]
fn a_root_namespaces_own_workloads_obey_it_once() {
    let mut policies = PolicySet::new(["root", "root"]);
    for policy in policy_in("root", "p", "{}").authorizations() {
        policies.insert_authorization(policy.as_ref().clone());
    }
    let denied = judge(&policies, &web(), &httpbin_in("root")).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "no rule of the ALLOW policies that apply matches (root/p)"
    );
}

#[test]
fn other_root_namespaces_can_be_configured() {
    let mut policies = PolicySet::new(["mesh-config"]);
    for policy in policy_in("istio-system", "p", "{}").authorizations() {
        policies.insert_authorization(policy.as_ref().clone());
    }
    assert_eq!(verdict(&policies, &web(), &httpbin_in("foo")), "allowed");
}

/// The first example of the reference, without its HTTP part.
#[test]
fn the_reference_example_allows_an_account_and_a_namespace() {
    check(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: httpbin
  namespace: foo
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/default/sa/curl\"]
    - source:
        namespaces: [\"test\"]
",
        &[
            (
                web().of("cluster.local", "default", "curl"),
                "foo",
                "allowed by foo/httpbin rules[0]",
            ),
            (
                web().of("cluster.local", "test", "any"),
                "foo",
                "allowed by foo/httpbin rules[0]",
            ),
            (web(), "foo", "not allowed"),
            (plaintext(), "foo", "not allowed"),
        ],
    );
}

/// "Namespace isolation" and "require mTLS" of Istio's page of security policy examples.
#[test]
fn the_namespace_isolation_example_keeps_others_out() {
    check(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: foo}
spec:
  mtls:
    mode: STRICT
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: foo-isolation, namespace: foo}
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        namespaces: [\"foo\"]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: require-mtls, namespace: bar}
spec:
  action: DENY
  rules:
  - from:
    - source:
        notPrincipals: [\"*\"]
",
        &[
            (
                web().of("cluster.local", "foo", "a"),
                "foo",
                "allowed by foo/foo-isolation rules[0]",
            ),
            (web(), "foo", "not allowed"),
            (
                plaintext(),
                "foo",
                "plaintext refused by foo/default for the namespace",
            ),
            (web(), "bar", "allowed"),
            (plaintext(), "bar", "denied by bar/require-mtls rules[0]"),
        ],
    );
}

/// The bulletin ISTIO-SECURITY-2021-004: plaintext passes `notNamespaces`.
#[test]
fn the_bulletins_example_lets_plaintext_pass() {
    check(
        "
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: allow-ns-not-foo, namespace: bar}
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        notNamespaces: [\"foo\"]
",
        &[
            (
                plaintext(),
                "bar",
                "allowed by bar/allow-ns-not-foo rules[0]",
            ),
            (web().of("cluster.local", "foo", "a"), "bar", "not allowed"),
        ],
    );
}

#[test]
fn a_removed_policy_has_no_effect_and_a_replaced_one_a_new_effect() {
    let server = httpbin_in("foo");
    let mut policies = policy_in("foo", "p", "{}");
    assert_eq!(verdict(&policies, &web(), &server), "not allowed");

    let before = policies.clone();
    let replacement = policy_in("foo", "p", "{rules: [{}]}");
    policies.insert_authorization(
        replacement
            .authorizations()
            .next()
            .unwrap()
            .as_ref()
            .clone(),
    );
    assert_eq!(
        verdict(&policies, &web(), &server),
        "allowed by foo/p rules[0]"
    );

    let name = ObjectName {
        namespace: "foo".into(),
        name: "p".into(),
    };
    assert!(policies.remove_authorization(&name).is_some());
    assert!(policies.remove_authorization(&name).is_none());
    assert_eq!(verdict(&policies, &web(), &server), "allowed");
    assert_eq!(verdict(&before, &web(), &server), "not allowed");
}

#[test]
fn a_dry_run_is_told_and_not_enforced() {
    let enforced = "
metadata: {name: allow, namespace: foo}
spec: {rules: [{from: [{source: {namespaces: [client]}}]}]}
---
";
    let dry = |action: &str, rules: &str| {
        format!(
            "{enforced}
metadata: {{name: dry, namespace: foo, annotations: {{istio.io/dry-run: 'true'}}}}
spec: {{action: {action}, rules: {rules}}}"
        )
    };
    let stranger = web().of("cluster.local", "stranger", "a");
    let allowed = "allowed by foo/allow rules[0]";
    for (yaml, client, expected, told) in [
        (
            dry("DENY", "[{}]"),
            web(),
            allowed,
            Some("dry run: would be refused: denied by AuthorizationPolicy foo/dry rules[0]"),
        ),
        (
            dry("DENY", "[]"),
            web(),
            allowed,
            Some("dry run: would be allowed by foo/allow rules[0]"),
        ),
        (
            dry("ALLOW", "[{}]"),
            stranger.clone(),
            "not allowed",
            Some("dry run: would be allowed by foo/dry rules[0]"),
        ),
        (
            dry("ALLOW", "[]"),
            stranger.clone(),
            "not allowed",
            Some(
                "dry run: would be refused: no rule of the ALLOW policies that apply \
                 matches (foo/allow, foo/dry)",
            ),
        ),
        (dry("AUDIT", "[{}]"), web(), allowed, None),
        (
            dry("DENY", "[{}]").replace("'true'", "'false'"),
            web(),
            "denied by foo/dry rules[0]",
            None,
        ),
    ] {
        let policies = policies(&yaml);
        let server = httpbin_in("foo");
        assert_eq!(verdict(&policies, &client, &server), expected, "{yaml}");
        let connection = Connection {
            source: client.identity.as_ref(),
            source_address: client.address,
            destination: &server,
            destination_address: (server.addresses[0], client.port).into(),
            through: crate::policy::Through::None,
            request: None,
        };
        let dry_run = dry_run(&policies, &connection);
        assert_eq!(
            dry_run.as_ref().map(DryRun::to_string).as_deref(),
            told,
            "{yaml}"
        );
    }
}

#[test]
fn a_permit_says_what_may_be_dialled() {
    let server = httpbin_in("foo");
    let permit = judge(&PolicySet::default(), &web(), &server).unwrap();
    assert_eq!(permit.workload(), &server.uid);
    assert_eq!(
        permit.destination_address(),
        "10.1.0.9:8080".parse().unwrap()
    );
}
