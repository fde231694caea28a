//! What a single rule matches.

use super::{Client, httpbin_in, judge, plaintext, policy_in, verdict, web};

/// A rule in YAML's flow style, a client, and whether the one matches the other: checked as the
/// only rule of an ALLOW policy and as that of a DENY policy.
#[track_caller]
fn check(rule: &str, client: &Client, matches: bool) {
    for (action, allowed) in [("ALLOW", matches), ("DENY", !matches)] {
        let policies = policy_in(
            "foo",
            "p",
            &format!("{{action: {action}, rules: [{rule}]}}"),
        );
        let verdict = judge(&policies, client, &httpbin_in("foo"));
        assert_eq!(
            verdict.is_ok(),
            allowed,
            "{action} {rule} {client:?} {verdict:?}"
        );
    }
}

#[test]
fn principals_match_exactly_by_prefix_by_suffix_and_by_presence() {
    for (principals, matches) in [
        ("cluster.local/ns/client/sa/web", true),
        ("cluster.local/ns/client/sa/we", false),
        ("cluster.local/ns/client/sa/webx", false),
        ("other.domain/ns/client/sa/web", false),
        ("cluster.local/ns/client/*", true),
        ("cluster.local/ns/other/*", false),
        ("*/sa/web", true),
        ("*/sa/other", false),
        ("*", true),
        ("spam, cluster.local/ns/client/sa/web", true),
    ] {
        for (field, expected) in [("principals", matches), ("notPrincipals", !matches)] {
            let values = principals.split(", ").collect::<Vec<_>>().join("', '");
            check(
                &format!("{{from: [{{source: {{{field}: ['{values}']}}}}]}}"),
                &web(),
                expected,
            );
        }
        for (field, expected) in [("values", matches), ("notValues", !matches)] {
            let values = principals.split(", ").collect::<Vec<_>>().join("', '");
            check(
                &format!("{{when: [{{key: source.principal, {field}: ['{values}']}}]}}"),
                &web(),
                expected,
            );
        }
    }
}

#[test]
fn namespaces_accounts_and_trust_domains_are_those_of_the_identity() {
    let namespaces = ["namespaces", "notNamespaces"];
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let trust_domains = ["trustDomains", "notTrustDomains"];
    for ([positive, negative], value, matches) in [
        (namespaces, "client", true),
        (namespaces, "cli*", true),
        (namespaces, "*nt", true),
        (namespaces, "*", true),
        (namespaces, "foo", false),
        (accounts, "client/web", true),
        (accounts, "client/other", false),
        (accounts, "foo/web", false),
        (trust_domains, "cluster.local", true),
        (trust_domains, "*.local", true),
        (trust_domains, "other.domain", false),
    ] {
        for (field, expected) in [(positive, matches), (negative, !matches)] {
            check(
                &format!("{{from: [{{source: {{{field}: ['{value}']}}}}]}}"),
                &web(),
                expected,
            );
        }
    }
}

#[test]
fn an_account_without_namespace_is_of_the_policys_own() {
    let own = web().of("cluster.local", "foo", "web");
    for rule in [
        "{from: [{source: {serviceAccounts: [web]}}]}",
        "{when: [{key: source.serviceAccount, values: [web]}]}",
    ] {
        check(rule, &own, true);
        check(rule, &web(), false);
    }
    check(
        "{when: [{key: source.serviceAccount, notValues: [web]}]}",
        &web(),
        true,
    );
    check(
        "{when: [{key: source.serviceAccount, values: [client/web]}]}",
        &web(),
        true,
    );
}

#[test]
fn without_identity_no_positive_form_matches_and_every_negative_form_does() {
    for (positive, negative, value) in [
        ("principals", "notPrincipals", "*"),
        ("principals", "notPrincipals", "cluster.local/ns/client/*"),
        ("namespaces", "notNamespaces", "client"),
        ("serviceAccounts", "notServiceAccounts", "client/web"),
        ("trustDomains", "notTrustDomains", "cluster.local"),
    ] {
        for (field, expected) in [(positive, false), (negative, true)] {
            check(
                &format!("{{from: [{{source: {{{field}: ['{value}']}}}}]}}"),
                &plaintext(),
                expected,
            );
        }
    }
    for (key, value) in [
        ("source.namespace", "client"),
        ("source.principal", "*"),
        ("source.serviceAccount", "client/web"),
    ] {
        for (field, expected) in [("values", false), ("notValues", true)] {
            check(
                &format!("{{when: [{{key: {key}, {field}: ['{value}']}}]}}"),
                &plaintext(),
                expected,
            );
        }
    }
}

#[test]
fn addresses_match_by_network() {
    for (block, client, matches) in [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.2", "10.0.0.1", false),
        ("10.0.0.0/24", "10.0.0.1", true),
        ("10.0.0.77/24", "10.0.0.1", true),
        ("10.0.1.0/24", "10.0.0.1", false),
        ("0.0.0.0/0", "10.0.0.1", true),
        ("0.0.0.0/0", "fd00::1", false),
        ("::/0", "10.0.0.1", false),
        ("fd00::/8", "fd00::1", true),
        ("10.0.0.0/24", "::ffff:10.0.0.1", true),
        ("::ffff:10.0.0.0/120", "10.0.0.1", true),
        ("::ffff:10.0.0.1", "10.0.0.1", true),
    ] {
        let client = web().at(client);
        for (field, expected) in [
            ("ipBlocks", matches),
            ("notIpBlocks", !matches),
            ("remoteIpBlocks", matches),
            ("notRemoteIpBlocks", !matches),
        ] {
            let rule = format!("{{from: [{{source: {{{field}: ['{block}']}}}}]}}");
            check(&rule, &client, expected);
        }
        for key in ["source.ip", "remote.ip"] {
            for (field, expected) in [("values", matches), ("notValues", !matches)] {
                let rule = format!("{{when: [{{key: {key}, {field}: ['{block}']}}]}}");
                check(&rule, &client, expected);
            }
        }
    }
}

#[test]
fn the_destination_is_the_workloads_own_address_and_port() {
    for (rule, matches) in [
        ("{to: [{operation: {ports: ['8080']}}]}", true),
        ("{to: [{operation: {ports: ['80', '8080']}}]}", true),
        ("{to: [{operation: {ports: ['80']}}]}", false),
        ("{to: [{operation: {notPorts: ['8080']}}]}", false),
        ("{to: [{operation: {notPorts: ['80']}}]}", true),
        (
            "{to: [{operation: {ports: ['8080'], notPorts: ['8080']}}]}",
            false,
        ),
        ("{when: [{key: destination.port, values: ['8080']}]}", true),
        ("{when: [{key: destination.port, values: ['80']}]}", false),
        (
            "{when: [{key: destination.port, notValues: ['8080']}]}",
            false,
        ),
        (
            "{when: [{key: destination.ip, values: [10.1.0.0/16]}]}",
            true,
        ),
        (
            "{when: [{key: destination.ip, values: [10.2.0.0/16]}]}",
            false,
        ),
        (
            "{when: [{key: destination.ip, notValues: [10.1.0.9]}]}",
            false,
        ),
    ] {
        check(rule, &web(), matches);
    }
}

#[test]
fn fields_and_clauses_are_all_needed_and_entries_are_alternatives() {
    for (rule, matches) in [
        ("{}", true),
        (
            "{from: [{source: {namespaces: [client], ipBlocks: [10.0.0.1]}}]}",
            true,
        ),
        (
            "{from: [{source: {namespaces: [client], ipBlocks: [10.0.0.2]}}]}",
            false,
        ),
        (
            "{from: [{source: {namespaces: [foo]}}, {source: {ipBlocks: [10.0.0.1]}}]}",
            true,
        ),
        (
            "{from: [{source: {namespaces: [foo]}}, {source: {ipBlocks: [10.0.0.2]}}]}",
            false,
        ),
        (
            "{to: [{operation: {ports: ['80']}}, {operation: {ports: ['8080']}}]}",
            true,
        ),
        (
            "{from: [{source: {namespaces: [client]}}], to: [{operation: {ports: ['80']}}]}",
            false,
        ),
        (
            "{from: [{source: {namespaces: [foo]}}], to: [{operation: {ports: ['8080']}}]}",
            false,
        ),
        (
            "{when: [{key: source.namespace, values: [client]}, {key: source.ip, values: [10.0.0.1]}]}",
            true,
        ),
        (
            "{when: [{key: source.namespace, values: [client]}, {key: source.ip, values: [10.0.0.2]}]}",
            false,
        ),
        (
            "{from: [{source: {namespaces: [client]}}], when: [{key: source.namespace, notValues: [client]}]}",
            false,
        ),
    ] {
        check(rule, &web(), matches);
    }
}

#[test]
fn an_allow_rule_that_asks_about_http_never_matches() {
    for rule in HTTP_RULES {
        let spec = format!("{{rules: [{rule}]}}");
        let policies = policy_in("foo", "p", &spec);
        let denied = judge(&policies, &web(), &httpbin_in("foo")).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "no rule of the ALLOW policies that apply matches (foo/p); \
             these ask about HTTP, which only a waypoint can answer: foo/p rules[0]",
            "{rule}"
        );
    }
}

#[test]
fn an_allow_rule_beside_one_that_asks_about_http_still_matches() {
    let policies = policy_in(
        "foo",
        "p",
        "{rules: [{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [client]}}]}]}",
    );
    assert_eq!(
        verdict(&policies, &web(), &httpbin_in("foo")),
        "allowed by foo/p rules[1]"
    );
}

#[test]
fn a_deny_rule_that_asks_about_http_keeps_its_other_part() {
    for rule in HTTP_RULES {
        let policies = policy_in("foo", "p", &format!("{{action: DENY, rules: [{rule}]}}"));
        let server = httpbin_in("foo");
        assert_eq!(
            verdict(&policies, &web(), &server),
            "denied by foo/p rules[0]",
            "{rule}"
        );
        // All of them name port 8080.
        assert_eq!(
            verdict(&policies, &web().on_port(80), &server),
            "allowed",
            "{rule}"
        );
    }
}

const HTTP_RULES: [&str; 11] = [
    "{to: [{operation: {ports: ['8080'], hosts: [a]}}]}",
    "{to: [{operation: {ports: ['8080'], notHosts: [a]}}]}",
    "{to: [{operation: {ports: ['8080'], methods: [GET]}}]}",
    "{to: [{operation: {ports: ['8080'], notMethods: [GET]}}]}",
    "{to: [{operation: {ports: ['8080'], paths: [/a*]}}]}",
    "{to: [{operation: {ports: ['8080'], notPaths: [/a*]}}]}",
    "{from: [{source: {requestPrincipals: ['*']}}], to: [{operation: {ports: ['8080']}}]}",
    "{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {ports: ['8080']}}]}",
    "{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[a]', values: [b]}]}",
    "{to: [{operation: {ports: ['8080']}}], when: [{key: connection.sni, values: [b]}]}",
    "{to: [{operation: {ports: ['8080']}}], when: [{key: experimental.envoy.filters.a, values: [b]}]}",
];
