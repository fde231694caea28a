//! What is read, what is refused, and in which words.

mod properties;
mod request_authentication;
mod values;

use http::HeaderName;
use serde_json::{Value, json};

use super::{authorization_policy, peer_authentication};
use crate::policy::model::{
    Action, AuthorizationPolicy, Condition, Criteria, MtlsMode, Pattern, Target, TargetKind,
    TargetReference,
};

fn object(spec: &str) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "foo" },
        "spec": serde_norway::from_str::<Value>(spec).unwrap(),
    })
}

#[track_caller]
fn policy(spec: &str) -> AuthorizationPolicy {
    authorization_policy(object(spec)).unwrap()
}

#[test]
fn every_field_of_a_rule_is_read() {
    let policy = policy(
        "
selector: {matchLabels: {app: httpbin, empty: ''}}
action: DENY
rules:
- from:
  - source: {principals: ['*/sa/a'], notNamespaces: [b*], trustDomains: ['*'], notIpBlocks: [10.1.2.3/8]}
  - source: {requestPrincipals: [a], remoteIpBlocks: ['::1']}
  to:
  - operation: {ports: ['80', '65535'], notPorts: ['1'], notHosts: [a], paths: [/b]}
  when:
  - {key: source.ip, values: [10.0.0.1]}
  - {key: 'request.headers[a]', values: [b]}
",
    );
    assert_eq!(policy.name.to_string(), "foo/p");
    assert_eq!(policy.action, Action::Deny);
    assert!(!policy.dry_run);
    let Target::Workloads(selector) = &policy.target else {
        panic!("{:?}", policy.target);
    };
    assert_eq!(selector.0.len(), 2);

    let rule = &policy.rules[0];
    let source = &rule.from[0];
    assert_eq!(source.principals.any_of, [Pattern::Suffix("/sa/a".into())]);
    assert_eq!(source.namespaces.none_of, [Pattern::Prefix("b".into())]);
    assert_eq!(source.trust_domains.any_of, [Pattern::Present]);
    assert_eq!(source.ip_blocks.none_of, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(
        rule.from[1].remote_ip_blocks.any_of,
        ["::1/128".parse().unwrap()]
    );
    assert_eq!(
        rule.to[0].ports,
        Criteria {
            any_of: vec![80, 65535],
            none_of: vec![1],
        }
    );
    assert_eq!(
        rule.when,
        [
            Condition::SourceAddress(Criteria {
                any_of: vec!["10.0.0.1/32".parse().unwrap()],
                none_of: vec![],
            }),
            Condition::Header(
                HeaderName::from_static("a"),
                Criteria {
                    any_of: vec![Pattern::Exact("b".into())],
                    none_of: vec![],
                }
            ),
        ]
    );
    assert_eq!(
        rule.http_fields,
        [
            "from[1].source.requestPrincipals",
            "to[0].operation.notHosts",
            "to[0].operation.paths",
            "when[1].key request.headers[a]",
        ]
    );
}

#[test]
fn target_references_are_kept() {
    let one = "{targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}}";
    let list = "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}";
    for spec in [one, list] {
        let gateway = TargetReference {
            kind: TargetKind::Gateway,
            name: "g".into(),
        };
        assert_eq!(policy(spec).target, Target::References(vec![gateway]));
    }
}

#[test]
fn what_a_cluster_adds_is_accepted() {
    let value = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "p", "uid": "u", "generation": 3, "labels": {}, "managedFields": [],
            "annotations": { "a": "b" }, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {},
        "status": { "conditions": [] },
    });
    let policy = authorization_policy(value).unwrap();
    assert_eq!(policy.name.to_string(), "default/p");
    assert_eq!(policy.action, Action::Allow);
}

#[test]
fn an_absent_spec_is_an_empty_one() {
    for value in [
        json!({ "metadata": { "name": "p" } }),
        json!({ "metadata": { "name": "p" }, "spec": null }),
    ] {
        let policy = authorization_policy(value.clone()).unwrap();
        assert_eq!((policy.action, policy.rules.len()), (Action::Allow, 0));
        assert_eq!(peer_authentication(value).unwrap().mode, MtlsMode::Unset);
    }
}

#[test]
fn a_list_in_place_of_fields_is_refused() {
    for spec in [
        "[]",
        "{selector: []}",
        "{selector: [{a: b}]}",
        "{rules: [[]]}",
        "{rules: [{from: [[]]}]}",
        "{rules: [{from: [{source: [[a]]}]}]}",
        "{rules: [{to: [{operation: [['80']]}]}]}",
        "{rules: [{when: [[source.ip, ['::1']]]}]}",
        "{targetRef: [a, b, c]}",
    ] {
        refuses(
            authorization_policy(object(spec)),
            "invalid type: sequence, expected named fields",
        );
    }
    for spec in ["{mtls: [STRICT]}", "{selector: [{a: b}]}", "[]"] {
        refuses(
            peer_authentication(object(spec)),
            "invalid type: sequence, expected named fields",
        );
    }
}

#[track_caller]
fn refuses(result: Result<impl std::fmt::Debug, super::Error>, expected: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} lacks {expected:?}");
}

#[test]
fn a_wrong_spec_is_refused_by_path() {
    for (spec, expected) in [
        (
            "{action: CUSTOM}",
            "spec.action: CUSTOM asks an external service",
        ),
        (
            "{action: Deny}",
            "spec.action: \"Deny\" is not an action: write ALLOW, DENY or AUDIT",
        ),
        (
            "{rule: []}",
            "unknown field `rule`, expected one of `selector`",
        ),
        ("{provider: {name: x}}", "unknown field `provider`"),
        ("[]", "spec: invalid type: sequence, expected named fields"),
        (
            "{rules: {}}",
            "spec.rules: invalid type: map, expected a sequence",
        ),
        ("{action: }", "spec.action: invalid type: null"),
        ("{selector: }", "spec.selector: invalid type: null"),
        ("{targetRef: }", "spec.targetRef: invalid type: null"),
        ("{rules: null}", "spec.rules: invalid type: null"),
        ("{rules: [null]}", "spec.rules[0]: invalid type: null"),
        (
            "{rules: [{form: []}]}",
            "spec.rules[0].form: unknown field `form`, expected one of `from`",
        ),
        (
            "{rules: [{from: []}]}",
            "spec.rules[0].from: the list is empty",
        ),
        (
            "{rules: [{from: null}]}",
            "spec.rules[0].from: invalid type: null",
        ),
        (
            "{rules: [{from: [{}]}]}",
            "spec.rules[0].from[0]: missing field `source`",
        ),
        (
            "{rules: [{to: [{}]}]}",
            "spec.rules[0].to[0]: missing field `operation`",
        ),
        (
            "{rules: [{from: [{source: {}}]}]}",
            "the source is empty and would match everyone",
        ),
        (
            "{rules: [{to: [{operation: {}}]}]}",
            "the operation is empty and would match everything",
        ),
        (
            "{selector: {matchExpressions: []}}",
            "unknown field `matchExpressions`",
        ),
        (
            "{selector: {matchLabels: {a: b*}}}",
            "spec.selector.matchLabels.a: \"b*\": labels take no",
        ),
        (
            "{selector: {matchLabels: {a: 1}}}",
            "expected the value of a label, in quotes",
        ),
        (
            "{selector: {matchLabels: {'': b}}}",
            "a label without a name",
        ),
        (
            "{selector: {}, targetRef: {kind: Service, name: b}}",
            "spec: only one of selector, targetRef",
        ),
        ("{targetRefs: []}", "spec.targetRefs: the list is empty"),
        (
            "{targetRef: {kind: Service}}",
            "spec.targetRef: missing field `name`",
        ),
        (
            "{targetRef: {kind: Pod, name: b}}",
            "spec.targetRef.kind: \"Pod\" is no target: write Service, Gateway or GatewayClass",
        ),
        (
            "{targetRefs: [{group: a.b, kind: Gateway, name: b}]}",
            "spec.targetRefs[0]: a Gateway of group \"a.b\" is no target: write \"gateway.networking",
        ),
        (
            "{targetRef: {kind: Service, name: b, namespace: c}}",
            "spec.targetRef.namespace: \"c\": a policy is only for targets of its own namespace",
        ),
    ] {
        refuses(
            authorization_policy(object(spec)),
            "AuthorizationPolicy foo/p: ",
        );
        refuses(authorization_policy(object(spec)), expected);
    }
}

#[test]
fn a_wrong_object_is_refused_by_name() {
    let annotated = |value: Value| json!({ "metadata": { "name": "p", "annotations": { "istio.io/dry-run": value } } });
    for (value, expected) in [
        (
            json!(null),
            "AuthorizationPolicy default/(without a name): .: invalid type: null",
        ),
        (
            json!({}),
            "AuthorizationPolicy default/(without a name): .: missing field `metadata`",
        ),
        (json!({ "metadata": {} }), "metadata: missing field `name`"),
        (
            json!({ "metadata": { "name": "" } }),
            "metadata.name: the string is empty",
        ),
        (
            json!({ "metadata": { "name": "p" }, "sepc": {} }),
            "unknown field `sepc`",
        ),
        (
            json!({ "kind": "Pod", "metadata": { "name": "p" } }),
            "default/p: kind is \"Pod\"; write AuthorizationPolicy",
        ),
        (
            json!({ "apiVersion": "v1", "metadata": { "name": "p", "namespace": "n" } }),
            "n/p: apiVersion is \"v1\"; write security.istio.io/v1 or security.istio.io/v1beta1",
        ),
        (
            annotated(json!("yes")),
            "metadata.annotations.istio.io/dry-run: \"yes\" is neither",
        ),
        (
            annotated(json!(true)),
            "expected \"true\" or \"false\", in quotes",
        ),
    ] {
        refuses(authorization_policy(value), expected);
    }
}

#[test]
fn a_wrong_peer_authentication_is_refused_by_path() {
    for (spec, expected) in [
        (
            "{mtls: {mode: strict}}",
            "spec.mtls.mode: \"strict\" is not a mode: write UNSET, DISABLE",
        ),
        ("{mtls: {mode: ''}}", "spec.mtls.mode: \"\" is not a mode"),
        (
            "{mtls: STRICT}",
            "spec.mtls: invalid type: string \"STRICT\"",
        ),
        ("{mtls: {mode: }}", "spec.mtls.mode: invalid type: null"),
        ("{mtls: {mod: STRICT}}", "unknown field `mod`"),
        ("{mTLS: {mode: STRICT}}", "unknown field `mTLS`"),
        (
            "{portLevelMtls: {'80': {mode: STRICT}}}",
            "spec: portLevelMtls needs a selector",
        ),
        (
            "{selector: {}, portLevelMtls: {'80': {mode: STRICT}}}",
            "spec: portLevelMtls needs a selector",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {mode: STRICT}}}",
            "\"0\" is not a port",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {'80': {mode: X}}}",
            "spec.portLevelMtls.80.mode: \"X\" is not a mode",
        ),
    ] {
        refuses(
            peer_authentication(object(spec)),
            "PeerAuthentication foo/p: spec",
        );
        refuses(peer_authentication(object(spec)), expected);
    }
    let created = json!({ "metadata": { "name": "p", "creationTimestamp": "yesterday" } });
    refuses(
        peer_authentication(created),
        "metadata.creationTimestamp: \"yesterday\" is not a time",
    );
}
