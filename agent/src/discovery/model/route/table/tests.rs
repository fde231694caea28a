use http::Request;
use proptest::prelude::*;

use super::*;
use crate::discovery::{
    facts::Object,
    manifest::{self, Format},
    reduce::Reducer,
};

/// A route of that kind, namespace and name, for Service `shop/cart`.
fn route(kind: &str, name: &str, created: &str, rules: &str) -> Route {
    let (namespace, name) = name.split_once('/').unwrap();
    let created = match created {
        "" => String::new(),
        created => format!("creationTimestamp: '{created}', "),
    };
    let yaml = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{{created}\
         namespace: {namespace}, name: {name}}}, spec: {{parentRefs: [{{group: '', kind: Service, \
         namespace: shop, name: cart}}], rules: [{rules}]}}}}"
    );
    let manifest = manifest::parse(&yaml, Format::Yaml, &mut Reducer::new("cluster.local"));
    let mut manifest = manifest.unwrap();
    assert_eq!(manifest.errors, [], "{yaml}");
    match manifest.objects.remove(0).object {
        Object::Route(route) => *route,
        other => panic!("{other:?}"),
    }
}

/// A rule with that name and these matches.
fn rule(name: &str, matches: &str) -> String {
    format!("{{name: {name}, matches: [{matches}], backendRefs: [{{name: cart, port: 80}}]}}")
}

fn rules(all: &[(&str, &str)]) -> String {
    let all: Vec<_> = all.iter().map(|(name, it)| rule(name, it)).collect();
    all.join(", ")
}

fn table<'a>(routes: impl IntoIterator<Item = &'a Route>) -> RouteTable {
    let attached = routes.into_iter().map(|route| Attached { port: 80, route });
    RouteTable::compile("shop", attached)
}

/// `GET /path?query`, then headers: `name: value`.
fn request(line: &str, headers: &[&str]) -> Parts {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The name of the rule that is found for a client of that namespace.
fn found(table: &RouteTable, client: &str, request: &Parts) -> String {
    match table.find(80, client, request, request.uri.path()) {
        Found::NoRoutes => "no routes".into(),
        Found::NoMatch => "no match".into(),
        Found::Rule { rule, .. } => rule.name.as_deref().unwrap_or("unnamed").into(),
    }
}

#[track_caller]
fn check(table: &RouteTable, cases: &[(&str, &[&str], &str)]) {
    for (line, headers, expected) in cases {
        let request = request(line, headers);
        assert_eq!(
            found(table, "shop", &request),
            *expected,
            "{line} {headers:?}"
        );
    }
}

#[test]
fn paths_match_whole_or_by_segments_or_as_a_whole_expression() {
    let all = rules(&[
        ("exact", "{path: {type: Exact, value: /a/b}}"),
        ("long", "{path: {value: /a/b}}"),
        ("short", "{path: {type: PathPrefix, value: /a/}}"),
        (
            "pattern",
            "{path: {type: RegularExpression, value: '/c/[0-9]+|/c/x'}}",
        ),
        ("case", "{path: {value: /Case}}"),
    ]);
    let cases: &[(&str, &[&str], &str)] = &[
        ("GET /a/b", &[], "exact"),
        ("GET /a/b/", &[], "long"),
        ("GET /a/b/c", &[], "long"),
        ("GET /a/b?x=1", &[], "exact"),
        ("GET /a/bc", &[], "short"),
        ("GET /a/", &[], "short"),
        ("GET /a", &[], "short"),
        ("GET /ab", &[], "no match"),
        ("GET /", &[], "no match"),
        ("GET /c/42", &[], "pattern"),
        ("GET /c/x", &[], "pattern"),
        ("GET /c/42/", &[], "no match"),
        ("GET /b/c/42", &[], "no match"),
        ("GET /case", &[], "no match"),
        ("GET /Case/x", &[], "case"),
        ("OPTIONS *", &[], "no match"),
    ];
    check(&table(&[route("HTTPRoute", "shop/r", "", &all)]), cases);
}

#[test]
fn the_more_specific_match_goes_first_whatever_the_order_of_rules() {
    // Each is to win over all that follow, for a request that all of them match.
    let ranked = [
        ("exact", "{path: {type: Exact, value: /a/b}}"),
        ("long", "{path: {value: /a/b}}"),
        (
            "short-method",
            "{path: {value: /a}, method: GET, headers: [{name: x, value: '1'}]}",
        ),
        ("short-method-only", "{path: {value: /a}, method: GET}"),
        (
            "short-headers",
            "{path: {value: /a}, headers: [{name: x, value: '1'}, {name: y, value: '1'}]}",
        ),
        (
            "short-header-and-query",
            "{path: {value: /a}, headers: [{name: x, value: '1'}], queryParams: [{name: q, value: '1'}]}",
        ),
        (
            "short-header",
            "{path: {value: /a}, headers: [{name: x, value: '1'}]}",
        ),
        (
            "short-queries",
            "{path: {value: /a}, queryParams: [{name: q, value: '1'}, {name: r, value: '1'}]}",
        ),
        (
            "short-query",
            "{path: {value: /a}, queryParams: [{name: q, value: '1'}]}",
        ),
        ("short", "{path: {value: /a}}"),
        (
            "pattern-method",
            "{path: {type: RegularExpression, value: '/a.*'}, method: GET}",
        ),
        (
            "pattern",
            "{path: {type: RegularExpression, value: '/a.*'}}",
        ),
        ("any-method", "{method: GET}"),
        ("any-header", "{headers: [{name: x, value: '1'}]}"),
        ("any", ""),
    ];
    let request = request("GET /a/b?q=1&r=1", &["x: 1", "y: 1"]);
    for (place, (name, _)) in ranked.iter().enumerate() {
        let mut rest = ranked[place..].to_vec();
        for _ in 0..2 {
            let table = table(&[route("HTTPRoute", "shop/r", "", &rules(&rest))]);
            assert_eq!(found(&table, "shop", &request), *name);
            rest.reverse();
        }
    }
}

#[test]
fn of_two_alike_the_older_route_goes_first_then_the_name_then_the_order_of_rules() {
    let one = |name: &str, created: &str| route("HTTPRoute", name, created, &rule(&name[5..], ""));
    let (old, new) = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
    let table_of = [
        ([one("shop/b", old), one("shop/a", new)], "b"),
        ([one("shop/b", old), one("shop/a", old)], "a"),
        ([one("shop/b", ""), one("shop/a", "")], "a"),
        ([one("shop/a", ""), one("shop/b", new)], "b"),
    ];
    let request = request("GET /", &[]);
    for (routes, expected) in table_of {
        assert_eq!(found(&table(&routes), "shop", &request), expected);
        assert_eq!(
            found(&table(routes.iter().rev()), "shop", &request),
            expected
        );
    }
    let same = rules(&[
        ("first", "{method: POST}, {method: GET}"),
        ("second", "{method: GET}"),
    ]);
    let same = route("HTTPRoute", "shop/r", "", &same);
    assert_eq!(found(&table(&[same]), "shop", &request), "first");
}

#[test]
fn headers_and_parameters_are_compared_as_http_means_them() {
    let all = rules(&[
        ("exact", "{headers: [{name: X-A, value: One}]}"),
        (
            "twice",
            "{headers: [{name: b, value: '1'}, {name: B, value: '2'}]}",
        ),
        ("joined", "{headers: [{name: c, value: '1,2'}]}"),
        (
            "pattern",
            "{headers: [{name: d, type: RegularExpression, value: 'v[0-9]|w'}]}",
        ),
        ("host", "{headers: [{name: Host, value: cart}]}"),
        (
            "query",
            "{queryParams: [{name: animal, value: 'blue whale'}]}",
        ),
        (
            "query-pattern",
            "{queryParams: [{name: size, type: RegularExpression, value: '[0-9]+'}]}",
        ),
    ]);
    let cases: &[(&str, &[&str], &str)] = &[
        ("GET /", &["x-a: One"], "exact"),
        ("GET /", &["x-a: one"], "no match"),
        ("GET /", &["x-a: One", "x-a: Two"], "no match"),
        ("GET /", &["b: 1"], "twice"),
        ("GET /", &["b: 2"], "no match"),
        ("GET /", &["c: 1", "c: 2"], "joined"),
        ("GET /", &["d: v7"], "pattern"),
        ("GET /", &["d: w"], "pattern"),
        ("GET /", &["d: v77"], "no match"),
        ("GET /", &["d: aw"], "no match"),
        ("GET /", &["host: cart"], "host"),
        ("GET http://cart/", &[], "host"),
        ("GET /?animal=blue+whale", &[], "query"),
        ("GET /?x=1&animal=blue%20whale", &[], "query"),
        ("GET /?animal=shark&animal=blue+whale", &[], "no match"),
        ("GET /?Animal=blue+whale", &[], "no match"),
        ("GET /?size=12", &[], "query-pattern"),
        ("GET /?size=12m", &[], "no match"),
        ("GET /?size", &[], "no match"),
    ];
    check(&table(&[route("HTTPRoute", "shop/r", "", &all)]), cases);
}

#[test]
fn calls_match_by_service_and_method_and_the_longer_goes_first() {
    let all = rules(&[
        ("any-header", "{headers: [{name: v, value: '2'}]}"),
        ("method", "{method: {method: Add}}"),
        (
            "pattern",
            "{method: {type: RegularExpression, service: 'shop\\..*', method: 'Del.*'}}",
        ),
        ("service", "{method: {service: shop.Cart}}"),
        (
            "both",
            "{method: {type: Exact, service: .shop.Cart, method: Add}}",
        ),
    ]);
    let grpc = "content-type: application/grpc+proto";
    let cases: &[(&str, &[&str], &str)] = &[
        ("POST /shop.Cart/Add", &[grpc], "both"),
        ("POST /shop.Cart/Delete", &[grpc], "service"),
        ("POST /shop.Cart/Delete", &[grpc, "v: 2"], "service"),
        ("POST /shop.Store/Delete", &[grpc], "pattern"),
        ("POST /shop.Store/Add", &[grpc], "method"),
        ("POST /shop.Store/Get", &[grpc, "v: 2"], "any-header"),
        ("POST /shop.Store/Get", &[grpc], "no match"),
        ("POST /shop.CartV2/Get", &[grpc], "no match"),
        (
            "POST /shop.Cart/Add",
            &["content-type: application/grpc"],
            "both",
        ),
        (
            "POST /shop.Cart/Add",
            &["content-type: application/grpc-web"],
            "no match",
        ),
        ("GET /shop.Cart/Add", &[], "no match"),
    ];
    check(&table(&[route("GRPCRoute", "shop/r", "", &all)]), cases);
}

#[test]
fn routes_of_other_namespaces_hold_for_their_clients_alone_and_instead() {
    let producer = route(
        "HTTPRoute",
        "shop/r",
        "",
        &rule("producer", "{path: {value: /p}}"),
    );
    let consumer = route(
        "HTTPRoute",
        "front/r",
        "",
        &rule("consumer", "{path: {value: /c}}"),
    );
    let cases = [
        (vec![&producer, &consumer], "front", "/c", "consumer"),
        (vec![&producer, &consumer], "front", "/p", "no match"),
        (vec![&producer, &consumer], "shop", "/p", "producer"),
        (vec![&producer, &consumer], "back", "/p", "producer"),
        (vec![&producer, &consumer], "back", "/c", "no match"),
        (vec![&consumer], "shop", "/c", "no routes"),
        (vec![], "shop", "/c", "no routes"),
    ];
    for (routes, client, path, expected) in cases {
        let request = request(&format!("GET {path}"), &[]);
        let table = table(routes);
        assert_eq!(found(&table, client, &request), expected, "{client} {path}");
        let elsewhere = table.find(81, client, &request, path);
        assert!(matches!(elsewhere, Found::NoRoutes), "{client} {path}");
    }
}

#[test]
fn where_both_kinds_are_attached_the_more_specific_one_holds_alone() {
    let http = route("HTTPRoute", "shop/r", "", &rule("http", ""));
    let grpc = route(
        "GRPCRoute",
        "shop/r",
        "",
        &rule("grpc", "{method: {service: a}}"),
    );
    let table = table(&[http, grpc]);
    let header: &[&str] = &["content-type: application/grpc"];
    check(
        &table,
        &[
            ("POST /a/b", header, "grpc"),
            ("POST /b/b", header, "no match"),
            ("GET /", &[], "no match"),
        ],
    );
    assert_eq!(table.kind(80, "shop"), Some(RouteKind::Grpc));
    assert_eq!(table.kind(81, "shop"), None);
}

fn any_match() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec![
        "",
        "path: {value: /}",
        "path: {value: /a}",
        "path: {value: /a/b}",
        "path: {type: Exact, value: /a}",
        "path: {type: Exact, value: /a/}",
        "path: {type: RegularExpression, value: '/a.*'}",
    ]);
    let method = prop::sample::select(vec!["", "method: GET"]);
    let headers = prop::sample::select(vec!["", "headers: [{name: x, value: '1'}]"]);
    let query = prop::sample::select(vec!["", "queryParams: [{name: q, value: '1'}]"]);
    (path, method, headers, query).prop_map(|(path, method, headers, query)| {
        let parts = [path, method, headers, query];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{{{}}}", parts.join(", "))
    })
}

proptest! {
    /// What is found by look-up is what trying every match in turn would find.
    #[test]
    fn look_up_finds_what_a_walk_in_order_would(
        matches in prop::collection::vec(any_match(), 1..12),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b"]),
        method in prop::sample::select(vec!["GET", "POST"]),
        header in any::<bool>(),
        query in any::<bool>(),
    ) {
        let named: Vec<_> = matches.iter().enumerate()
            .map(|(index, it)| rule(&format!("r{index}"), it)).collect();
        let route = route("HTTPRoute", "shop/r", "", &named.join(", "));
        let line = format!("{method} {path}{}", if query { "?q=1" } else { "" });
        let request = request(&line, if header { &["x: 1"] } else { &[] });
        let order = |path: &PathMatch| match path {
            PathMatch::Exact(_) => (0, Reverse(0)),
            PathMatch::Prefix(prefix) if prefix.is_empty() => (3, Reverse(0)),
            PathMatch::Prefix(prefix) => (1, Reverse(prefix.len())),
            _ => (2, Reverse(0)),
        };
        let mut fitting: Vec<_> = route.rules.iter()
            .flat_map(|entry| entry.matches.iter().map(move |it| (it, &entry.rule)))
            .filter(|(it, _)| it.path.matches(path) && it.matches_but_path(&request))
            .collect();
        fitting.sort_by_key(|(it, rule)| (order(&it.path), rank(&route, rule, it)));
        let expected = fitting.first().map(|(_, rule)| rule.name.as_deref().unwrap());
        prop_assert_eq!(found(&table([&route]), "shop", &request), expected.unwrap_or("no match"));
    }
}
