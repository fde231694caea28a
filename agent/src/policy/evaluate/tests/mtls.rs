//! PeerAuthentication: what becomes of plaintext.

use std::fmt::Write;

use super::{httpbin_in, plaintext, policies, verdict, web};

/// A PeerAuthentication: namespace, name, second of its creation, spec in YAML's flow style.
type Policy = (&'static str, &'static str, Option<u8>, &'static str);

/// Plaintext to port 8080 of `httpbin` in `foo` is refused in these words, or allowed.
#[track_caller]
fn check(table: &[Policy], expected: &str) {
    // The order in which they arrive doesn't matter.
    let forwards: Vec<_> = table.iter().collect();
    let backwards: Vec<_> = table.iter().rev().collect();
    for order in [forwards, backwards] {
        let policies = policies(&yaml(&order));
        assert_eq!(
            verdict(&policies, &plaintext(), &httpbin_in("foo")),
            expected,
            "{order:?}"
        );
        assert_eq!(
            verdict(&policies, &web(), &httpbin_in("foo")),
            "allowed",
            "{order:?}"
        );
    }
}

fn yaml(table: &[&Policy]) -> String {
    let mut yaml = String::new();
    for (namespace, name, second, spec) in table {
        let created = second.map_or("null".to_owned(), |s| format!("2026-01-01T00:00:{s:02}Z"));
        writeln!(
            yaml,
            "---\nkind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: \
             {{namespace: {namespace}, name: {name}, creationTimestamp: {created}}}\nspec: {spec}"
        )
        .unwrap();
    }
    yaml
}

const STRICT: &str = "{mtls: {mode: STRICT}}";
const PERMISSIVE: &str = "{mtls: {mode: PERMISSIVE}}";
const DISABLE: &str = "{mtls: {mode: DISABLE}}";
const UNSET: &str = "{mtls: {mode: UNSET}}";
const HERE_STRICT: &str = "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}}";
const HERE_PERMISSIVE: &str = "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: PERMISSIVE}}";
const HERE_UNSET: &str = "{selector: {matchLabels: {app: httpbin}}}";
const ELSEWHERE_STRICT: &str = "{selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}}";

const BY_MESH: &str = "plaintext refused by istio-system/mesh for the mesh";
const BY_NAMESPACE: &str = "plaintext refused by foo/ns for the namespace";
const BY_WORKLOAD: &str = "plaintext refused by foo/w for this workload";

#[test]
fn the_narrowest_level_that_is_set_counts() {
    for (table, expected) in [
        (&[][..], "allowed"),
        (&[("istio-system", "mesh", None, STRICT)], BY_MESH),
        (&[("istio-system", "mesh", None, PERMISSIVE)], "allowed"),
        (&[("foo", "ns", None, STRICT)], BY_NAMESPACE),
        (&[("foo", "ns", None, DISABLE)], "allowed"),
        (&[("foo", "w", None, HERE_STRICT)], BY_WORKLOAD),
        (&[("bar", "ns", None, STRICT)], "allowed"),
        (&[("bar", "w", None, HERE_STRICT)], "allowed"),
        (&[("foo", "w", None, ELSEWHERE_STRICT)], "allowed"),
        (
            &[
                ("istio-system", "mesh", None, STRICT),
                ("foo", "ns", None, PERMISSIVE),
            ],
            "allowed",
        ),
        (
            &[
                ("istio-system", "mesh", None, STRICT),
                ("foo", "ns", None, DISABLE),
            ],
            "allowed",
        ),
        (
            &[
                ("istio-system", "mesh", None, STRICT),
                ("foo", "ns", None, UNSET),
            ],
            BY_MESH,
        ),
        (
            &[
                ("istio-system", "mesh", None, PERMISSIVE),
                ("foo", "ns", None, STRICT),
            ],
            BY_NAMESPACE,
        ),
        (
            &[
                ("foo", "ns", None, STRICT),
                ("foo", "w", None, HERE_PERMISSIVE),
            ],
            "allowed",
        ),
        (
            &[
                ("foo", "ns", None, PERMISSIVE),
                ("foo", "w", None, HERE_STRICT),
            ],
            BY_WORKLOAD,
        ),
        (
            &[("foo", "ns", None, STRICT), ("foo", "w", None, HERE_UNSET)],
            BY_NAMESPACE,
        ),
        (
            &[
                ("istio-system", "mesh", None, STRICT),
                ("foo", "ns", None, UNSET),
                ("foo", "w", None, HERE_UNSET),
            ],
            BY_MESH,
        ),
    ] {
        check(table, expected);
    }
}

#[test]
fn a_selector_in_a_root_namespace_is_ignored() {
    check(&[("istio-system", "mesh", None, HERE_STRICT)], "allowed");
}

#[test]
fn of_several_the_oldest_counts_then_the_first_by_name() {
    for (table, expected) in [
        (
            [
                ("foo", "ns", Some(1), STRICT),
                ("foo", "a", Some(2), PERMISSIVE),
            ],
            BY_NAMESPACE,
        ),
        (
            [
                ("foo", "ns", Some(2), STRICT),
                ("foo", "z", Some(1), PERMISSIVE),
            ],
            "allowed",
        ),
        (
            [
                ("foo", "ns", Some(1), STRICT),
                ("foo", "z", Some(1), PERMISSIVE),
            ],
            BY_NAMESPACE,
        ),
        (
            [("foo", "ns", None, STRICT), ("foo", "a", None, PERMISSIVE)],
            "allowed",
        ),
        (
            [
                ("foo", "ns", Some(1), STRICT),
                ("foo", "a", None, PERMISSIVE),
            ],
            BY_NAMESPACE,
        ),
        // The oldest being UNSET, the level is.
        (
            [("foo", "ns", Some(2), STRICT), ("foo", "a", Some(1), UNSET)],
            "allowed",
        ),
        (
            [
                ("foo", "w", Some(1), HERE_STRICT),
                ("foo", "a", Some(2), HERE_PERMISSIVE),
            ],
            BY_WORKLOAD,
        ),
        (
            [
                ("istio-system", "mesh", Some(1), STRICT),
                ("ambit-system", "a", Some(2), PERMISSIVE),
            ],
            BY_MESH,
        ),
    ] {
        check(&table, expected);
    }
}

#[test]
fn a_port_has_its_own_mode_or_else_the_workloads() {
    let by_port = "plaintext refused by foo/w for port 8080 of this workload";
    for (mode, port, expected) in [
        ("STRICT", "8080: {mode: DISABLE}", "allowed"),
        ("STRICT", "8080: {mode: PERMISSIVE}", "allowed"),
        ("STRICT", "8080: {mode: UNSET}", BY_WORKLOAD),
        ("STRICT", "8080: {}", BY_WORKLOAD),
        ("STRICT", "80: {mode: DISABLE}", BY_WORKLOAD),
        ("PERMISSIVE", "8080: {mode: STRICT}", by_port),
        ("DISABLE", "8080: {mode: STRICT}", by_port),
        ("UNSET", "8080: {mode: STRICT}", by_port),
        ("UNSET", "80: {mode: STRICT}", "allowed"),
    ] {
        let spec = format!(
            "{{selector: {{matchLabels: {{app: httpbin}}}}, mtls: {{mode: {mode}}}, \
             portLevelMtls: {{{port}}}}}"
        );
        let policies = policies(&yaml(&[&("foo", "w", None, spec.leak())]));
        assert_eq!(
            verdict(&policies, &plaintext(), &httpbin_in("foo")),
            expected,
            "{mode} {port}"
        );
    }
}

#[test]
fn an_unset_workload_inherits_but_for_its_ports() {
    let ports =
        "{selector: {matchLabels: {app: httpbin}}, portLevelMtls: {'8080': {mode: DISABLE}}}";
    let table = [("foo", "ns", None, STRICT), ("foo", "w", None, ports)];
    let policies = policies(&yaml(&table.iter().collect::<Vec<_>>()));
    let server = httpbin_in("foo");
    assert_eq!(verdict(&policies, &plaintext(), &server), "allowed");
    assert_eq!(
        verdict(&policies, &plaintext().on_port(80), &server),
        BY_NAMESPACE
    );
}

#[test]
fn strict_comes_before_an_allow_policy() {
    let policies = policies(
        "
kind: PeerAuthentication
metadata: {name: ns, namespace: foo}
spec: {mtls: {mode: STRICT}}
---
kind: AuthorizationPolicy
metadata: {name: all, namespace: foo}
spec: {rules: [{}]}
",
    );
    let server = httpbin_in("foo");
    assert_eq!(verdict(&policies, &plaintext(), &server), BY_NAMESPACE);
    assert_eq!(
        verdict(&policies, &web(), &server),
        "allowed by foo/all rules[0]"
    );
}
