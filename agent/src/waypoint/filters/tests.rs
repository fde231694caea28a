mod conformance;

use http::{Method, Request as Builder, StatusCode};

use super::*;
use crate::discovery::{
    facts::Object,
    manifest::{self, Format},
    reduce::Reducer,
};

/// A request line `GET target`, then headers `name: value`.
fn request(line: &str, headers: &[&str]) -> Request {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Builder::builder().method(method).uri(target);
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

/// `name: value, value` of each header, by name.
fn listed(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<_> = headers.keys().collect();
    names.sort_by_key(|name| name.as_str());
    let line = |name| {
        let values = headers.get_all(name).iter().map(|it| it.to_str().unwrap());
        format!("{name}: {}", values.collect::<Vec<_>>().join(","))
    };
    names.into_iter().map(line).collect()
}

/// The filters of a rule with one match.
fn filters(matches: &str, filters: &str) -> Filters {
    let yaml = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: shop, \
         name: r}}, spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: \
         [{{matches: [{matches}], filters: [{filters}]}}]}}}}"
    );
    let manifest = manifest::parse(&yaml, Format::Yaml, &mut Reducer::new("cluster.local"));
    let mut manifest = manifest.unwrap();
    assert_eq!(manifest.errors, [], "{yaml}");
    match manifest.objects.remove(0).object {
        Object::Route(route) => route.rules[0].rule.filters.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prefix_is_replaced_by_segments() {
    // As the specification lists them: path, prefix, replacement, path then.
    for (path, prefix, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
    ] {
        let matches = format!("{{path: {{type: PathPrefix, value: {prefix}}}}}");
        let change = format!(
            "{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, \
             replacePrefixMatch: '{replacement}'}}}}}}"
        );
        let filters = filters(&matches, &change);
        let mut request = request(&format!("GET {path}?q=1"), &[]);
        let matched = prefix.trim_end_matches('/');
        change_request(&filters, &mut request, path, matched).unwrap();
        assert_eq!(
            request.uri.to_string(),
            format!("{expected}?q=1"),
            "{path} {prefix} {replacement}"
        );
    }
}

#[test]
fn a_host_is_rewritten_wherever_the_version_of_http_has_it() {
    let rewrite = filters(
        "",
        "{type: URLRewrite, urlRewrite: {hostname: other.example}}",
    );
    let header = filters(
        "",
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: other.example}]}}",
    );
    for filters in [rewrite, header] {
        let mut first = request("GET /a?b", &["host: web:80"]);
        change_request(&filters, &mut first, "/a", "").unwrap();
        assert_eq!(first.uri, "/a?b");
        assert_eq!(listed(&first.headers), ["host: other.example"]);

        let mut second = request("GET http://web:80/a?b", &[]);
        change_request(&filters, &mut second, "/a", "").unwrap();
        assert_eq!(second.uri, "http://other.example/a?b");
    }
}

#[test]
fn a_request_that_no_redirect_can_be_made_of_is_the_clients_fault() {
    let filters = filters(
        "",
        "{type: RequestRedirect, requestRedirect: {scheme: https}}",
    );
    let to = filters.redirect.unwrap();
    for headers in [&[][..], &["host: a b"], &["host: user@web"], &["host: "]] {
        let request = request("GET /", headers);
        let error = redirect(&to, &request, 80, "/", "").unwrap_err();
        assert!(matches!(error, Error::NoHost), "{headers:?}");
    }
}

#[test]
fn a_redirect_keeps_what_it_does_not_say() {
    for (fields, request_, port, expected) in [
        ("{}", "GET /a?q=1", 80, "302 http://web/a?q=1"),
        ("{}", "GET /a", 8080, "302 http://web:8080/a"),
        (
            "{hostname: example.org}",
            "GET /a",
            8080,
            "302 http://example.org:8080/a",
        ),
        ("{scheme: https}", "GET /a", 8080, "302 https://web/a"),
        (
            "{scheme: http, port: 80}",
            "GET /a",
            8080,
            "302 http://web/a",
        ),
        (
            "{scheme: https, port: 80}",
            "GET /a",
            80,
            "302 https://web:80/a",
        ),
        ("{port: 443}", "GET /a", 80, "302 http://web:443/a"),
        (
            "{statusCode: 308}",
            "GET http://[::1]:80/a",
            80,
            "308 http://[::1]/a",
        ),
        ("{}", "GET https://other/a", 443, "302 https://other/a"),
    ] {
        let filters = filters(
            "",
            &format!("{{type: RequestRedirect, requestRedirect: {fields}}}"),
        );
        let request = request(request_, &["host: web:1234"]);
        let path = request.uri.path().to_owned();
        let to = filters.redirect.unwrap();
        let answer = redirect(&to, &request, port, &path, "").unwrap();
        let location = answer.headers[header::LOCATION].to_str().unwrap();
        let told = format!("{} {location}", answer.status.as_u16());
        assert_eq!(told, expected, "{fields}");
    }
}

/// The headers of the answer to a request, `preflight: ` before those that no backend sees.
fn cross(fields: &str, method: Method, headers: &[&str]) -> Vec<String> {
    let filters = filters("", &format!("{{type: CORS, cors: {fields}}}"));
    let request = request(&format!("{method} /"), headers);
    match cross_origin(&filters.cors.unwrap(), &request) {
        CrossOrigin::No => vec!["no".to_owned()],
        CrossOrigin::Preflight(answer) => {
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            let mut told = vec!["preflight".to_owned()];
            told.extend(listed(&answer.headers));
            told
        }
        CrossOrigin::Request(grant) => {
            let mut answer = empty(StatusCode::OK);
            // What the backend says of it doesn't count.
            for (name, value) in [
                ("access-control-allow-origin", "https://evil.example"),
                ("access-control-expose-headers", "secret"),
                ("vary", "Accept"),
            ] {
                answer.headers.insert(name, HeaderValue::from_static(value));
            }
            grant.apply(&mut answer);
            listed(&answer.headers)
        }
    }
}

#[test]
fn pages_of_allowed_origins_may_ask() {
    let some = "{allowOrigins: ['https://www.foo.com', 'https://*.bar.com', 'http://*:8080'], \
                allowMethods: [GET, PUT], allowHeaders: [X-A, x-b], exposeHeaders: [X-C], maxAge: 60}";
    let asks = "access-control-request-method: PUT";
    let allowed = |origin: &str| {
        vec![
            "preflight".to_owned(),
            "access-control-allow-headers: X-A, x-b".to_owned(),
            "access-control-allow-methods: GET, PUT".to_owned(),
            format!("access-control-allow-origin: {origin}"),
            "access-control-max-age: 60".to_owned(),
            "vary: Origin".to_owned(),
        ]
    };
    for (origin, is_allowed) in [
        ("https://www.foo.com", true),
        ("https://www.foo.com:443", true),
        ("https://WWW.foo.com", true),
        ("https://a.b.bar.com", true),
        ("http://anything:8080", true),
        ("http://www.foo.com", false),
        ("https://www.foo.com:8443", false),
        ("https://foo.com", false),
        ("https://bar.com", false),
        ("https://evilbar.com", false),
        ("https://www.foo.com.evil.com", false),
        ("http://user@a:8080", false),
        ("http://anything", false),
        ("null", false),
    ] {
        let header = format!("origin: {origin}");
        let expected = if is_allowed {
            allowed(origin)
        } else {
            vec!["preflight".to_owned()]
        };
        assert_eq!(
            cross(some, Method::OPTIONS, &[&header, asks]),
            expected,
            "{origin}"
        );
    }
    let origin = "origin: https://www.foo.com";
    assert_eq!(
        cross(some, Method::GET, &[origin]),
        [
            "access-control-allow-origin: https://www.foo.com",
            "access-control-expose-headers: X-C",
            "vary: Accept,Origin"
        ]
    );
    // OPTIONS without a question is a request like others.
    assert_eq!(cross(some, Method::OPTIONS, &[origin]).len(), 3);
    assert_eq!(cross(some, Method::OPTIONS, &[asks]), ["no"]);
    let evil = "origin: https://evil.example";
    assert_eq!(cross(some, Method::GET, &[evil]), ["vary: Accept"]);
}

#[test]
fn wildcards_are_written_out_where_credentials_go_along() {
    let all = "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*']";
    let plain = format!("{{{all}}}");
    let trusted = format!("{{{all}, allowCredentials: true}}");
    let origin = "origin: https://a.example";
    let asks = [
        origin,
        "access-control-request-method: PUT",
        "access-control-request-headers: x-a, x-b",
    ];
    assert_eq!(
        cross(&plain, Method::OPTIONS, &asks),
        [
            "preflight",
            "access-control-allow-headers: *",
            "access-control-allow-methods: *",
            "access-control-allow-origin: *",
            "access-control-max-age: 5"
        ]
    );
    assert_eq!(
        cross(&trusted, Method::OPTIONS, &asks),
        [
            "preflight",
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-a, x-b",
            "access-control-allow-methods: PUT",
            "access-control-allow-origin: https://a.example",
            "access-control-max-age: 5",
            "vary: Origin"
        ]
    );
    // Nothing was asked for.
    let without = cross(&trusted, Method::OPTIONS, &asks[..2]);
    assert!(
        !without.iter().any(|it| it.contains("allow-headers")),
        "{without:?}"
    );
    assert_eq!(
        cross(&plain, Method::GET, &[origin]),
        [
            "access-control-allow-origin: *",
            "access-control-expose-headers: *",
            "vary: Accept"
        ]
    );
    assert_eq!(
        cross(&trusted, Method::GET, &[origin]),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://a.example",
            "vary: Accept,Origin"
        ]
    );
}
