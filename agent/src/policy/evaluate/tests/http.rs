//! What rules match of requests, and what doesn't get past them.

mod headers;
mod tokens;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{httpbin_in, policy_in, web};
use crate::policy::{
    Connection, HttpRequest, PolicySet, Through, Token, evaluate, jwt::testing::verified,
    path::normalise,
};

/// A request as it comes.
#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    claims: Option<Value>,
    forwarded_for: Option<&'static str>,
}

fn get(path: &'static str) -> Request {
    Request {
        method: "GET",
        host: "shop.example",
        path,
        headers: vec![],
        claims: None,
        forwarded_for: None,
    }
}

impl Request {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn of(self, claims: Value) -> Self {
        Self {
            claims: Some(claims),
            ..self
        }
    }
}

/// Whether the policies allow it, from `web()` to port 8080; a path that can't be normalised never comes so far.
fn is_allowed(policies: &PolicySet, request: &Request) -> bool {
    let Ok(path) = normalise(request.path) else {
        return false;
    };
    let (client, server) = (web(), httpbin_in("foo"));
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    let token: Option<Token> = request.claims.as_ref().map(|it| verified(it, &[]));
    let http = HttpRequest {
        method: request.method,
        host: request.host,
        path: &path,
        headers: &headers,
        token: token.as_ref(),
        forwarded_for: request.forwarded_for.map(|it| it.parse().unwrap()),
    };
    let connection = Connection {
        source: client.identity.as_ref(),
        source_address: client.address,
        destination: &server,
        destination_address: (server.addresses[0], client.port).into(),
        through: Through::None,
        request: Some(&http),
    };
    evaluate(policies, &connection).is_ok()
}

fn rule(action: &str, rule: &str) -> PolicySet {
    policy_in(
        "foo",
        "p",
        &format!("{{action: {action}, rules: [{rule}]}}"),
    )
}

/// A rule that matches a request or not, whatever its action.
#[track_caller]
fn check(text: &str, request: &Request, matches: bool) {
    for (action, allowed) in [("ALLOW", matches), ("DENY", !matches)] {
        let told = is_allowed(&rule(action, text), request);
        assert_eq!(told, allowed, "{action} {text} {request:?}");
    }
}

#[test]
fn operations_match_methods_hosts_and_paths() {
    let post = Request {
        method: "POST",
        ..get("/a")
    };
    let of = |host| Request { host, ..get("/a") };
    for (operation, request, matches) in [
        ("methods: [GET]", get("/a"), true),
        ("methods: [GET]", post.clone(), false),
        ("methods: [POST, GET]", get("/a"), true),
        ("methods: ['P*']", post.clone(), true),
        ("notMethods: [GET]", get("/a"), false),
        ("notMethods: [GET]", post.clone(), true),
        (
            "methods: ['*']",
            Request {
                method: "get",
                ..get("/a")
            },
            true,
        ),
        (
            "methods: [GET]",
            Request {
                method: "get",
                ..get("/a")
            },
            false,
        ),
        ("hosts: [shop.example]", of("shop.example"), true),
        ("hosts: [Shop.Example]", of("shop.EXAMPLE"), true),
        ("hosts: [shop.example]", of("shop.example:8080"), true),
        ("hosts: [shop.example]", of("shop.example."), true),
        ("hosts: ['*.example']", of("a.shop.example:1"), true),
        ("hosts: ['shop.*']", of("SHOP.example"), true),
        ("hosts: ['shop.example:8080']", of("shop.example"), false),
        ("hosts: ['shop.example:*']", of("shop.example:1"), true),
        ("hosts: ['*']", of(""), false),
        ("hosts: [shop.example]", of(""), false),
        ("notHosts: [shop.example]", of(""), true),
        ("notHosts: [shop.example]", of("Shop.example.:80"), false),
        ("paths: [/a]", get("/a"), true),
        ("paths: [/a]", get("/a/"), false),
        ("paths: [/a]", get("/A"), false),
        ("paths: ['/a*']", get("/a/b"), true),
        ("paths: ['*.html']", get("/a.html"), true),
        ("paths: ['*']", get("/"), true),
        ("notPaths: ['/a*']", get("/b"), true),
        ("notPaths: ['/a*']", get("/a"), false),
        (
            "paths: ['/shops/{*}/items/{**}']",
            get("/shops/1/items/2/3"),
            true,
        ),
        (
            "paths: ['/shops/{*}/items']",
            get("/shops/1/2/items"),
            false,
        ),
        ("paths: ['/a%20b']", get("/a%20b"), true),
        ("paths: ['/a@b']", get("/a%40b"), true),
        ("paths: ['/a%3Bb']", get("/a;b"), true),
        (
            "paths: ['/pkg.Service/Method']",
            get("/pkg.Service/Method"),
            true,
        ),
        ("methods: [GET], paths: [/b]", get("/a"), false),
        ("ports: ['8080'], paths: [/a]", get("/a"), true),
        ("ports: ['80'], paths: [/a]", get("/a"), false),
    ] {
        check(
            &format!("{{to: [{{operation: {{{operation}}}}}]}}"),
            &request,
            matches,
        );
    }
}

/// Each is a spelling of `/admin`, or one that some server takes for it. Neither kind of policy may let it by.
#[test]
fn no_spelling_of_a_path_gets_past_a_policy() {
    let denies = rule("DENY", "{to: [{operation: {paths: [/admin, '/admin/*']}}]}");
    let allows_others = rule(
        "ALLOW",
        "{to: [{operation: {notPaths: [/admin, '/admin/*']}}]}",
    );
    let allows_public = rule("ALLOW", "{to: [{operation: {paths: ['/public/*']}}]}");
    for path in [
        "/admin",
        "//admin",
        "///admin",
        "/./admin",
        "/x/../admin",
        "/public/../admin",
        "/public/..//admin",
        "/public//../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/admin/",
        "/admin/.",
        "/admin//x",
        "/admin%2fx",
        "/admin/x/%2e%2e/y",
        "/admin%00",
    ] {
        for policies in [&denies, &allows_others, &allows_public] {
            assert!(!is_allowed(policies, &get(path)), "{path}");
        }
    }
    for path in ["/public/a", "/public/./a", "/x/../public/a"] {
        for policies in [&denies, &allows_others, &allows_public] {
            assert!(is_allowed(policies, &get(path)), "{path}");
        }
    }
}

#[test]
fn the_remote_address_is_the_forwarded_one() {
    let forwarded = Request {
        forwarded_for: Some("192.0.2.7"),
        ..get("/")
    };
    for (text, request, matches) in [
        (
            "{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}",
            &forwarded,
            true,
        ),
        (
            "{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}",
            &forwarded,
            false,
        ),
        (
            "{from: [{source: {remoteIpBlocks: [10.0.0.1]}}]}",
            &forwarded,
            false,
        ),
        (
            "{from: [{source: {remoteIpBlocks: [10.0.0.1]}}]}",
            &get("/"),
            true,
        ),
        (
            "{when: [{key: remote.ip, values: [192.0.2.7]}]}",
            &forwarded,
            true,
        ),
        (
            "{when: [{key: source.ip, values: [192.0.2.7]}]}",
            &forwarded,
            false,
        ),
        (
            "{when: [{key: remote.ip, notValues: [192.0.2.7]}]}",
            &forwarded,
            false,
        ),
    ] {
        check(text, request, matches);
    }
}

#[test]
fn what_is_never_seen_lets_nobody_in_and_keeps_no_denial_off() {
    for key in ["connection.sni", "experimental.envoy.filters.a"] {
        for form in ["values: [a]", "notValues: [a]"] {
            let text = format!("{{when: [{{key: {key}, {form}}}]}}");
            for action in ["ALLOW", "DENY"] {
                assert!(
                    !is_allowed(&rule(action, &text), &get("/")),
                    "{action} {text}"
                );
            }
        }
    }
}

#[test]
fn audit_decides_nothing() {
    assert!(is_allowed(
        &rule("AUDIT", "{to: [{operation: {paths: [/a]}}]}"),
        &get("/a")
    ));
}
