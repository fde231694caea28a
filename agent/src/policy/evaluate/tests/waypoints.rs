//! Policies that are attached to waypoints and services.

use http::HeaderMap;

use super::{policies, web};
use crate::{
    discovery::model::ObjectName,
    policy::{
        HttpRequest, PolicySet, ViaWaypoint, WaypointScope, dry_run_at_waypoint,
        evaluate_at_waypoint,
    },
};

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// The verdict on a GET of `/a` at waypoint `infra/way` for service `shop/cart`, port 80; with `None`, on a
/// connection whose bytes aren't looked at.
fn verdict(policies: &PolicySet, method: Option<&str>) -> (String, Option<String>) {
    let (gateway, service) = (name("infra", "way"), name("shop", "cart"));
    let scope = WaypointScope {
        gateway: &gateway,
        service: Some(&service),
    };
    let (client, headers) = (web(), HeaderMap::new());
    let request = method.map(|method| HttpRequest {
        method,
        host: "cart",
        path: "/a",
        headers: &headers,
        token: None,
        forwarded_for: None,
    });
    let connection = ViaWaypoint {
        source: client.identity.as_ref(),
        source_address: client.address,
        asked_for: ([10, 9, 0, 1], 80).into(),
        request: request.as_ref(),
    };
    let told = match evaluate_at_waypoint(policies, &scope, &connection) {
        Ok(()) => "allowed".to_owned(),
        Err(denied) => denied.to_string(),
    };
    let dry = dry_run_at_waypoint(policies, &scope, &connection);
    (told, dry.map(|dry| dry.to_string()))
}

#[test]
fn a_policy_applies_where_it_is_attached() {
    let denied = |namespace: &str| format!("denied by AuthorizationPolicy {namespace}/p rules[0]");
    for (namespace, target, applies) in [
        (
            "infra",
            "{kind: Gateway, group: gateway.networking.k8s.io, name: way}",
            true,
        ),
        (
            "infra",
            "{kind: Gateway, group: gateway.networking.k8s.io, name: other}",
            false,
        ),
        (
            "shop",
            "{kind: Gateway, group: gateway.networking.k8s.io, name: way}",
            false,
        ),
        ("shop", "{kind: Service, name: cart}", true),
        ("shop", "{kind: Service, name: other}", false),
        ("infra", "{kind: Service, name: cart}", false),
        (
            "istio-system",
            "{kind: GatewayClass, group: gateway.networking.k8s.io, name: ambit-waypoint}",
            true,
        ),
        (
            "istio-system",
            "{kind: GatewayClass, group: gateway.networking.k8s.io, name: other}",
            false,
        ),
        (
            "infra",
            "{kind: GatewayClass, group: gateway.networking.k8s.io, name: ambit-waypoint}",
            false,
        ),
    ] {
        let yaml = format!(
            "metadata: {{name: p, namespace: {namespace}}}\n\
             spec: {{action: DENY, targetRefs: [{target}], rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}"
        );
        let mut set = policies(&yaml);
        let expected = if applies {
            denied(namespace)
        } else {
            "allowed".to_owned()
        };
        assert_eq!(
            verdict(&set, Some("GET")).0,
            expected,
            "{namespace} {target}"
        );
        assert_eq!(
            verdict(&set, Some("PUT")).0,
            "allowed",
            "{namespace} {target}"
        );
        // A DENY rule keeps its L4 part.
        assert_eq!(verdict(&set, None).0, expected, "{namespace} {target}");

        assert!(set.remove_authorization(&name(namespace, "p")).is_some());
        assert_eq!(
            verdict(&set, Some("GET")).0,
            "allowed",
            "{namespace} {target}"
        );
    }
}

#[test]
fn an_allow_policy_shuts_others_out_and_its_http_rules_match_no_bytes() {
    let set = policies(
        "
metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, name: cart}], rules: [{to: [{operation: {methods: [GET]}}]}]}
",
    );
    assert_eq!(verdict(&set, Some("GET")).0, "allowed");
    assert_eq!(
        verdict(&set, Some("PUT")).0,
        "no rule of the ALLOW policies that apply matches (shop/p)"
    );
    assert_eq!(
        verdict(&set, None).0,
        "no rule of the ALLOW policies that apply matches (shop/p); \
         these ask about HTTP, which only a waypoint can answer: shop/p rules[0]"
    );
}

#[test]
fn ports_are_those_that_were_asked_for() {
    for (port, expected) in [
        (80, "denied by AuthorizationPolicy shop/p rules[0]"),
        (8080, "allowed"),
    ] {
        let set = policies(&format!(
            "metadata: {{name: p, namespace: shop}}\n\
             spec: {{action: DENY, targetRefs: [{{kind: Service, name: cart}}], rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}"
        ));
        assert_eq!(verdict(&set, Some("GET")).0, expected, "{port}");
    }
}

#[test]
fn another_target_replaces_the_first() {
    let attached = |target: &str| {
        policies(&format!(
            "metadata: {{name: p, namespace: shop}}\n\
             spec: {{action: DENY, {target}, rules: [{{}}]}}"
        ))
    };
    let mut set = attached("targetRefs: [{kind: Service, name: cart}]");
    for (target, expected) in [
        ("targetRefs: [{kind: Service, name: other}]", "allowed"),
        (
            "targetRef: {kind: Service, name: cart}",
            "denied by AuthorizationPolicy shop/p rules[0]",
        ),
        ("selector: {}", "allowed"),
    ] {
        let other = attached(target);
        let policy = other.authorizations().next().unwrap().as_ref().clone();
        set.insert_authorization(policy);
        assert_eq!(verdict(&set, Some("GET")).0, expected, "{target}");
    }
}

#[test]
fn a_dry_run_only_tells() {
    let set = policies(
        "
metadata: {name: p, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, targetRefs: [{kind: Service, name: cart}], rules: [{to: [{operation: {paths: [/a]}}]}]}
",
    );
    let (told, dry) = verdict(&set, Some("GET"));
    assert_eq!(told, "allowed");
    assert_eq!(
        dry.as_deref(),
        Some("dry run: would be refused: denied by AuthorizationPolicy shop/p rules[0]")
    );
    let none = PolicySet::default();
    assert_eq!(verdict(&none, Some("GET")), ("allowed".to_owned(), None));
}
