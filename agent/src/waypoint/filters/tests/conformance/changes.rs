//! What rules do to requests and answers, and instead.

use super::*;

#[test]
fn changing_headers_of_requests_and_answers_for_a_rule_or_for_a_backend() {
    let change = "{set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Remove]}";
    let headers: &[&str] = &[
        "x-set: old",
        "x-add: first",
        "X-Remove: gone",
        "other: stays",
    ];
    let request = format!("{{type: RequestHeaderModifier, requestHeaderModifier: {change}}}");
    let answer = format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {change}}}");
    let changed: &[&str] = &[
        "echo-v1",
        "/",
        "other: stays",
        "x-add: first,added",
        "x-set: set",
    ];
    let backend = |filter: &str| {
        format!("{{backendRefs: [{{name: echo-v1, port: 80, filters: [{filter}]}}]}}")
    };
    for rules in [rule("", &request, "echo-v1"), backend(&request)] {
        check(&route("HTTPRoute", &rules), &[("GET /", headers, changed)]);
    }
    for rules in [rule("", &answer, "echo-v1"), backend(&answer)] {
        let added: &[&str] = &["echo-v1", "/", "< x-add: added", "< x-set: set"];
        check(&route("HTTPRoute", &rules), &[("GET /", &[], added)]);
    }
    let grpc: &[&str] = &["content-type: application/grpc", "x-set: old"];
    let told: &[&str] = &[
        "echo-v1",
        "/a.B/C",
        "content-type: application/grpc",
        "x-add: added",
        "x-set: set",
    ];
    check(
        &route("GRPCRoute", &rule("", &request, "echo-v1")),
        &[("POST /a.B/C", grpc, told)],
    );
}

#[test]
fn redirecting() {
    let to = |path: &str, fields: &str| {
        let filter = format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}");
        rule(&prefix(path), &filter, "")
    };
    let by_prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}";
    let by_full = "path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}";
    let rules = [
        to("/hostname", "hostname: example.org"),
        to("/status", "statusCode: 301"),
        to("/host-and-status", "hostname: example.org, statusCode: 301"),
        to("/303", "statusCode: 303"),
        to("/307", "statusCode: 307"),
        to("/308", "statusCode: 308"),
        to("/scheme", "scheme: https"),
        to("/port", "port: 8083"),
        to("/port-and-host", "hostname: example.org, port: 8083"),
        to("/original-prefix", by_prefix),
        to("/full", by_full),
        to(
            "/path-and-host",
            &format!("hostname: example.org, {by_prefix}"),
        ),
        to("/path-and-status", &format!("statusCode: 301, {by_prefix}")),
        to(
            "/full-path-and-host",
            &format!("hostname: example.org, {by_full}"),
        ),
    ];
    check(
        &route("HTTPRoute", &rules.join(", ")),
        &[
            ("GET /hostname", &[], &["302 http://example.org/hostname"]),
            ("GET /status", &[], &["301 http://echo/status"]),
            (
                "GET /host-and-status",
                &[],
                &["301 http://example.org/host-and-status"],
            ),
            ("POST /303", &[], &["303 http://echo/303"]),
            ("POST /307", &[], &["307 http://echo/307"]),
            ("POST /308", &[], &["308 http://echo/308"]),
            ("GET /scheme", &[], &["302 https://echo/scheme"]),
            ("GET /port", &[], &["302 http://echo:8083/port"]),
            (
                "GET /port-and-host",
                &[],
                &["302 http://example.org:8083/port-and-host"],
            ),
            (
                "GET /original-prefix/lemon",
                &[],
                &["302 http://echo/replacement-prefix/lemon"],
            ),
            (
                "GET /full/path/original",
                &[],
                &["302 http://echo/full-path-replacement"],
            ),
            (
                "GET /path-and-host/lemon",
                &[],
                &["302 http://example.org/replacement-prefix/lemon"],
            ),
            (
                "GET /path-and-status/lemon",
                &[],
                &["301 http://echo/replacement-prefix/lemon"],
            ),
            (
                "GET /full-path-and-host/x",
                &[],
                &["302 http://example.org/full-path-replacement"],
            ),
        ],
    );
}

#[test]
fn rewriting() {
    let to = |path: &str, change: &str, more: &str| {
        let filter = format!("{{type: URLRewrite, urlRewrite: {{path: {{{change}}}}}}}{more}");
        rule(&prefix(path), &filter, "echo-v1")
    };
    let headers =
        ", {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: set}]}}";
    let rules = [
        to(
            "/prefix/one",
            "type: ReplacePrefixMatch, replacePrefixMatch: /one",
            "",
        ),
        to(
            "/strip-prefix",
            "type: ReplacePrefixMatch, replacePrefixMatch: /",
            "",
        ),
        to(
            "/full/one",
            "type: ReplaceFullPath, replaceFullPath: /one",
            "",
        ),
        to(
            "/prefix/and-headers",
            "type: ReplacePrefixMatch, replacePrefixMatch: /prefix",
            headers,
        ),
    ];
    check(
        &route("HTTPRoute", &rules.join(", ")),
        &[
            ("GET /prefix/one/two", &[], &["echo-v1", "/one/two"]),
            ("GET /strip-prefix/three", &[], &["echo-v1", "/three"]),
            ("GET /strip-prefix", &[], &["echo-v1", "/"]),
            ("GET /full/one/two", &[], &["echo-v1", "/one"]),
            (
                "GET /prefix/and-headers/one",
                &["x: old"],
                &["echo-v1", "/prefix/one", "x: set"],
            ),
        ],
    );
}
