mod errors;

use std::time::Duration;

use super::*;
use crate::discovery::model::{
    AllowedOrigins, BackendTarget, Fraction, InvalidBackend, Listed, Retry, RouteRule, Timeouts,
};

/// A route `shop/canary` for Service `shop/web`, with these rules.
fn read<M: RawMatch + serde::de::DeserializeOwned>(
    rules: &str,
) -> (Result<model::Route, String>, Vec<String>) {
    let yaml = format!(
        "{{metadata: {{namespace: shop, name: canary}}, spec: {{parentRefs: [{{group: '', \
         kind: Service, name: web}}], rules: [{rules}]}}}}"
    );
    let mut issues = Vec::new();
    let route = serde_norway::from_str::<Route<M>>(&yaml).unwrap();
    let route = reducer().route(&route, &mut issues);
    let issues = issues.iter().map(ToString::to_string).collect();
    (route.map_err(|error| error.to_string()), issues)
}

/// The one rule of a good HTTPRoute.
fn rule(yaml: &str) -> RouteRule {
    let (route, issues) = read::<HttpMatch>(yaml);
    assert_eq!(issues, [""; 0], "{yaml}");
    RouteRule::clone(&route.unwrap().rules[0].rule)
}

#[test]
fn parents_that_are_services_are_kept_and_others_are_none_of_ours() {
    let cases: [(&str, &[&str]); 7] = [
        ("{name: edge}", &[]),
        (
            "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}",
            &[],
        ),
        // Without a group it is one of the Gateway API's.
        ("{kind: Service, name: web}", &[]),
        (
            "{group: networking.istio.io, kind: ServiceEntry, name: web}",
            &[],
        ),
        (
            "{group: '', kind: Service, name: web, port: 80}",
            &["0 shop/web 80"],
        ),
        (
            "{group: '', kind: Service, namespace: store, name: web, sectionName: http}",
            &["0 store/web http"],
        ),
        (
            "{group: '', kind: Service, name: a}, {name: edge}, {group: '', kind: Service, name: b}",
            &["0 shop/a", "2 shop/b"],
        ),
    ];
    for (parents, expected) in cases {
        // What is for no Service isn't looked at.
        let rules = if expected.is_empty() {
            "{matches: [{path: {type: No}}]}"
        } else {
            ""
        };
        let yaml = format!(
            "{{metadata: {{namespace: shop, name: r}}, spec: {{parentRefs: [{parents}], rules: [{rules}]}}}}"
        );
        let route = serde_norway::from_str::<Route<HttpMatch>>(&yaml).unwrap();
        let route = reducer().route(&route, &mut Vec::new()).unwrap();
        let parents = route.parents.iter().map(|parent| {
            let port = parent.port.map(|port| format!(" {port}"));
            let section = parent.section.as_ref().map(|name| format!(" {name}"));
            let (port, section) = (port.unwrap_or_default(), section.unwrap_or_default());
            format!("{} {}{port}{section}", parent.index, parent.service)
        });
        assert_eq!(parents.collect::<Vec<_>>(), expected, "{yaml}");
        assert_eq!(route.rules.len(), 0);
    }
}

#[test]
fn a_route_that_says_nothing_matches_everything_and_one_for_grpc_nothing() {
    let yaml = "{metadata: {namespace: shop, name: r}, spec: {parentRefs: [{group: '', kind: Service, name: web}]}}";
    let http = serde_norway::from_str::<Route<HttpMatch>>(yaml).unwrap();
    let http = reducer().route(&http, &mut Vec::new()).unwrap();
    assert_eq!(http.rules.len(), 1);
    assert_eq!(http.rules[0].rule.backend(0), None);
    let grpc = serde_norway::from_str::<Route<GrpcMatch>>(yaml).unwrap();
    let grpc = reducer().route(&grpc, &mut Vec::new()).unwrap();
    assert_eq!(grpc.rules, []);
}

#[test]
fn what_can_not_be_done_here_has_its_requests_refused_and_is_told_of() {
    let extension = "{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}";
    let of_rule = format!("{{filters: [{extension}], backendRefs: [{{name: web, port: 80}}]}}");
    let (route, issues) = read::<HttpMatch>(&of_rule);
    let route = route.unwrap();
    let filter = |name: &str| InvalidBackend::Filter {
        filter: name.into(),
    };
    let refused = BackendTarget::Invalid(filter("ExtensionRef"));
    assert_eq!(route.rules[0].rule.backend(7).unwrap().target, refused);
    assert_eq!(
        issues,
        [
            "spec.rules[0].filters[0].type: filter ExtensionRef is not supported: remove it; until then \
          requests that it is for are answered with an error"
        ]
    );

    let of_backend = format!(
        "{{backendRefs: [{{name: web, port: 80}}, {{name: web, port: 80, filters: [{extension}]}}]}}"
    );
    let (route, issues) = read::<HttpMatch>(&of_backend);
    let backends = &route.unwrap().rules[0].rule.backends;
    assert!(matches!(backends[0].target, BackendTarget::Service { .. }));
    assert_eq!(backends[1].target, refused);
    assert_eq!(issues.len(), 1);

    // gRPC knows no redirects.
    let redirect = "{filters: [{type: RequestRedirect, requestRedirect: {}}]}";
    let (route, issues) = read::<GrpcMatch>(redirect);
    let target = &route.unwrap().rules[0].rule.backends[0].target;
    assert_eq!(*target, BackendTarget::Invalid(filter("RequestRedirect")));
    assert_eq!(issues.len(), 1);

    let other =
        rule("{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}]}");
    let kind = "multicluster.x-k8s.io ServiceImport".to_owned();
    assert_eq!(
        other.backends[0].target,
        BackendTarget::Invalid(InvalidBackend::Kind { kind })
    );
}

#[test]
fn times_and_tries_are_read_as_the_api_writes_them() {
    let milliseconds = |it| Some(Duration::from_millis(it));
    for (yaml, request, backend_request) in [
        ("{timeouts: {}}", None, None),
        ("{timeouts: {request: 0s}}", None, None),
        (
            "{timeouts: {request: 1h2m3s4ms}}",
            milliseconds(3_723_004),
            None,
        ),
        (
            "{timeouts: {request: 10s, backendRequest: 500ms}}",
            milliseconds(10_000),
            milliseconds(500),
        ),
        (
            "{timeouts: {request: 0s, backendRequest: 1m}}",
            None,
            milliseconds(60_000),
        ),
    ] {
        let expected = Timeouts {
            request,
            backend_request,
        };
        assert_eq!(rule(yaml).timeouts, expected, "{yaml}");
    }
    let retry = |codes: &[u16], attempts, backoff| {
        let codes = codes
            .iter()
            .map(|code| http::StatusCode::from_u16(*code).unwrap());
        Some(Retry {
            codes: codes.collect(),
            attempts,
            backoff: Duration::from_millis(backoff),
        })
    };
    assert_eq!(rule("{}").retry, None);
    assert_eq!(rule("{retry: {}}").retry, retry(&[], 2, 25));
    let full = "{retry: {codes: [503, 500, 503], attempts: 3, backoff: 100ms}}";
    assert_eq!(rule(full).retry, retry(&[500, 503], 3, 100));
    let (route, issues) = read::<HttpMatch>("{retry: {attempts: 11}}");
    assert_eq!(route.unwrap().rules[0].rule.retry, retry(&[], 10, 25));
    assert_eq!(
        issues,
        ["spec.rules[0].retry.attempts: 11 counts as 10: more tries aren't made"]
    );
}

#[test]
fn filters_are_read() {
    let mirror = |more: &str| {
        let yaml = format!(
            "{{filters: [{{type: RequestMirror, requestMirror: {{{more} backendRef: {{name: web, port: 80}}}}}}]}}"
        );
        rule(&yaml).filters.mirrors[0].fraction
    };
    let part = |numerator, denominator| Fraction {
        numerator,
        denominator,
    };
    assert_eq!(mirror(""), Fraction::ALL);
    assert_eq!(mirror("percent: 42,"), part(42, 100));
    assert_eq!(
        mirror("fraction: {numerator: 5, denominator: 1000},"),
        part(5, 1000)
    );
    assert_eq!(mirror("fraction: {numerator: 5},"), part(5, 100));

    // Of several entries for one header the first counts.
    let set = "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: '1'}, {name: a, value: '2'}]}}]}";
    let set = rule(set).filters.request_headers.set;
    assert_eq!(set, [("a".parse().unwrap(), "1".parse().unwrap())]);

    let cors = "{filters: [{type: CORS, cors: {allowOrigins: ['https://*.example.com', 'http://*:8080'], allowMethods: ['*'], allowHeaders: [X-A, x-b]}}]}";
    let cors = rule(cors).filters.cors.unwrap();
    let AllowedOrigins::These(origins) = &cors.origins else {
        panic!("{cors:?}")
    };
    let origins = origins
        .iter()
        .map(|it| (&*it.scheme, &*it.host, it.is_suffix, it.port));
    assert_eq!(
        origins.collect::<Vec<_>>(),
        [
            ("https", ".example.com", true, 443),
            ("http", "", true, 8080)
        ]
    );
    assert_eq!((cors.methods, cors.max_age), (Listed::Any, 5));
    assert!(matches!(cors.headers, Listed::These { text, .. } if text == "X-A, x-b"));
    let all = "{filters: [{type: CORS, cors: {allowOrigins: ['*']}}]}";
    assert_eq!(rule(all).filters.cors.unwrap().origins, AllowedOrigins::Any);
}

#[test]
fn shares_are_those_of_the_weights() {
    let weights = |weights: &[u32]| {
        let each = weights
            .iter()
            .map(|it| format!("{{name: w{it}, port: 80, weight: {it}}}"));
        rule(&format!(
            "{{backendRefs: [{}]}}",
            each.collect::<Vec<_>>().join(", ")
        ))
    };
    for (of, expected) in [
        (&[70, 30, 0][..], &[70, 30, 0][..]),
        (&[1], &[100]),
        (&[0, 1, 1], &[0, 50, 50]),
        (&[0], &[0]),
        (&[1_000_000, 0], &[100, 0]),
    ] {
        let rule = weights(of);
        let mut counts = vec![0; of.len()];
        for part in 0..100 {
            // The middle of each hundredth of all numbers.
            let random = u32::MAX / 100 * part + u32::MAX / 200;
            if let Some(found) = rule.backend(random) {
                let place = rule.backends.iter().position(|it| std::ptr::eq(it, found));
                counts[place.unwrap()] += 1;
            }
        }
        assert_eq!(counts, expected);
    }
    let all = weights(&[1, 2]);
    assert_eq!(all.backend(u32::MAX), all.backends.last());
    assert_eq!(all.backend(0), all.backends.first());
}
