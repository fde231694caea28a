//! Values that are refused, with their path.

use super::{authorization_policy, object, refuses};

#[test]
fn a_wrong_value_is_refused_by_path() {
    let source = "spec.rules[0].from[0].source";
    let operation = "spec.rules[0].to[0].operation";
    for (clause, fields, path, problem) in [
        (
            "source",
            "principal: [a]",
            source,
            "unknown field `principal`",
        ),
        (
            "source",
            "principals: []",
            source,
            ".principals: the list is empty",
        ),
        (
            "source",
            "principals: a",
            source,
            ".principals: invalid type: string \"a\"",
        ),
        (
            "source",
            "principals: [a, '']",
            source,
            ".principals[1]: the string is empty",
        ),
        (
            "source",
            "principals: [1]",
            source,
            ".principals[0]: invalid type: integer `1`",
        ),
        (
            "source",
            "principals: ['spiffe://a/ns/b/sa/c']",
            source,
            ".principals[0]: \"spiffe://a/ns/b/sa/c\" would never match: write \"a/ns/b/sa/c\"",
        ),
        (
            "source",
            "principals: ['a/ns/*/sa/c']",
            source,
            ".principals[0]: \"a/ns/*/sa/c\" would never",
        ),
        (
            "source",
            "notNamespaces: ['*a*']",
            source,
            ".notNamespaces[0]: \"*a*\" would never match",
        ),
        (
            "source",
            "namespaces: ['**']",
            source,
            ".namespaces[0]: \"**\" would never match",
        ),
        (
            "source",
            "namespaces: ['a ']",
            source,
            ".namespaces[0]: \"a \" would never match",
        ),
        (
            "source",
            "ipBlocks: [10.0.0.0/33]",
            source,
            ".ipBlocks[0]: \"10.0.0.0/33\" is neither",
        ),
        (
            "source",
            "ipBlocks: [10.0.0]",
            source,
            ".ipBlocks[0]: \"10.0.0\" is neither an address",
        ),
        (
            "source",
            "notRemoteIpBlocks: ['']",
            source,
            ".notRemoteIpBlocks[0]: \"\" is neither",
        ),
        (
            "source",
            "serviceAccounts: [a/b/c]",
            source,
            ".serviceAccounts[0]: \"a/b/c\" is not",
        ),
        (
            "source",
            "serviceAccounts: [a/*]",
            source,
            ".serviceAccounts[0]: \"a/*\" is not",
        ),
        (
            "source",
            "serviceAccounts: [/a]",
            source,
            ".serviceAccounts[0]: \"/a\" is not",
        ),
        (
            "source",
            "serviceAccounts: [a], namespaces: [b]",
            source,
            "can't be combined",
        ),
        (
            "source",
            "requestPrincipals: ['']",
            source,
            ".requestPrincipals[0]: the string is empty",
        ),
        (
            "operation",
            "ports: ['0']",
            operation,
            ".ports[0]: \"0\" is not a port",
        ),
        (
            "operation",
            "ports: ['65536']",
            operation,
            ".ports[0]: \"65536\" is not a port",
        ),
        (
            "operation",
            "ports: ['+80']",
            operation,
            ".ports[0]: \"+80\" is not a port",
        ),
        (
            "operation",
            "ports: ['080']",
            operation,
            ".ports[0]: \"080\" is not a port",
        ),
        (
            "operation",
            "notPorts: ['http']",
            operation,
            ".notPorts[0]: \"http\" is not a port",
        ),
        (
            "operation",
            "ports: [80]",
            operation,
            ".ports[0]: invalid type: integer `80`, expected a port in quotes, such as \"8080\"",
        ),
        (
            "operation",
            "methods: [get]",
            operation,
            ".methods[0]: \"get\" would never match: write \"GET\"",
        ),
        (
            "operation",
            "hosts: ['http://a']",
            operation,
            ".hosts[0]: \"http://a\" would never match: write the host alone",
        ),
        (
            "operation",
            "paths: [a]",
            operation,
            ".paths[0]: \"a\" would never match: a path begins with /",
        ),
        (
            "operation",
            "paths: [/a//b]",
            operation,
            ".paths[0]: \"/a//b\" would never match: a path has no //",
        ),
        (
            "operation",
            "notPaths: ['/a/../b*']",
            operation,
            ".notPaths[0]: \"/a/../b*\" would never match: a path has no /../",
        ),
        (
            "operation",
            "paths: ['/a/..']",
            operation,
            ".paths[0]: \"/a/..\" would never match: it is \"/\" when it is matched",
        ),
        (
            "operation",
            "paths: [/a%2fb]",
            operation,
            ".paths[0]: \"/a%2fb\" would never match: the path has an escaped slash",
        ),
        (
            "operation",
            "paths: ['/a?b=c']",
            operation,
            ".paths[0]: \"/a?b=c\" would never match: the path has a ? or #",
        ),
        (
            "operation",
            "paths: ['/{**}/{*}']",
            operation,
            ".paths[0]: \"/{**}/{*}\" would never match: {*} and {**} stand for whole segments",
        ),
        (
            "operation",
            "method: [GET]",
            operation,
            "unknown field `method`",
        ),
        (
            "operation",
            "methods: []",
            operation,
            ".methods: the list is empty",
        ),
    ] {
        let list = if clause == "source" { "from" } else { "to" };
        let spec = format!("{{rules: [{{{list}: [{{{clause}: {{{fields}}}}}]}}]}}");
        refuses(
            authorization_policy(object(&spec)),
            &format!("AuthorizationPolicy foo/p: {path}"),
        );
        refuses(authorization_policy(object(&spec)), problem);
    }
}

#[test]
fn a_wrong_condition_is_refused_by_path() {
    for (condition, problem) in [
        ("key: source.ip", "a condition without values"),
        ("key: source.ip, values: []", ".values: the list is empty"),
        ("key: source.ip, value: [a]", "unknown field `value`"),
        (
            "key: source.ip, values: [a]",
            "values[0]: \"a\" is neither an address nor a CIDR",
        ),
        (
            "key: source.ip, notValues: ['::1', a]",
            "notValues[1]: \"a\" is neither",
        ),
        (
            "key: destination.port, values: ['0']",
            "values[0]: \"0\" is not a port",
        ),
        (
            "key: source.principal, values: ['spiffe://a']",
            "values[0]: \"spiffe://a\" would never",
        ),
        (
            "key: source.serviceAccount, values: ['*']",
            "values[0]: \"*\" is not a service account",
        ),
        (
            "key: source.port, values: ['1']",
            "unknown key \"source.port\": write source.ip",
        ),
        (
            "key: request.header, values: ['1']",
            "unknown key \"request.header\": write source.ip",
        ),
        (
            "key: 'request.headers[a', values: ['1']",
            "unknown key \"request.headers[a\"",
        ),
        (
            "key: 'request.headers[:path]', values: ['1']",
            "\":path\" is no header: write hosts, methods or paths",
        ),
        (
            "key: 'request.auth.claims[]', values: ['1']",
            "unknown key \"request.auth.claims[]\"",
        ),
        (
            "key: 'request.headers[a]', values: [' b']",
            "\" b\" would never match: take the white space at its ends out",
        ),
        ("values: ['1']", "missing field `key`"),
    ] {
        let spec = format!("{{rules: [{{}}, {{when: [{{{condition}}}]}}]}}");
        refuses(
            authorization_policy(object(&spec)),
            "AuthorizationPolicy foo/p: spec.rules[1].when[0]",
        );
        refuses(authorization_policy(object(&spec)), problem);
    }
}
