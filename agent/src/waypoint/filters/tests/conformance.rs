//! The cases of the Gateway API's conformance profile for meshes, as far as they are about what becomes of a
//! request: which backend gets it and how, or what is answered.

mod changes;

use super::*;
use crate::discovery::{
    model::{BackendTarget, Found, ObjectName, RouteKind},
    store::{Change, Store},
};

/// Service `echo` in front of `echo-v1` and `echo-v2`, each with ports 80 and 8080; and these routes.
fn mesh(routes: &str) -> Store {
    let services = ["echo", "echo-v1", "echo-v2"].map(|name| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: mesh, name: {name}, labels: \
             {{ambit.dev/use-waypoint: w}}}}, spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: \
             80}}, {{name: http-alt, port: 8080}}]}}}}\n"
        )
    });
    let yaml = services.concat() + routes;
    let manifest = manifest::parse(&yaml, Format::Yaml, &mut Reducer::new("cluster.local"));
    let manifest = manifest.unwrap();
    assert_eq!(manifest.errors, []);
    let store = Store::default();
    let objects = manifest.objects.into_iter();
    store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
    store
}

/// A route of namespace `mesh` for Service `echo`.
fn route(kind: &str, rules: &str) -> String {
    attached(kind, "mesh", "name: echo", rules)
}

fn attached(kind: &str, namespace: &str, parent: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{namespace: \
         {namespace}, name: r-{}}}, spec: {{hostnames: [ignored.example], parentRefs: [{{group: '', kind: \
         Service, namespace: mesh, {parent}}}], rules: [{rules}]}}}}\n",
        rules.len()
    )
}

fn rule(matches: &str, filters: &str, backend: &str) -> String {
    let backends = match backend {
        "" => String::new(),
        name => format!("{{namespace: mesh, name: {name}, port: 80}}"),
    };
    format!("{{matches: [{matches}], filters: [{filters}], backendRefs: [{backends}]}}")
}

fn prefix(path: &str) -> String {
    format!("{{path: {{type: PathPrefix, value: {path}}}}}")
}

/// What becomes of a request from a client of that namespace to a Service's port: the backend, then what it is
/// asked for, then its headers and those that the answer gets; or the answer.
fn outcome(store: &Store, client: &str, service: &str, port: u16, request: Request) -> Vec<String> {
    let snapshot = store.snapshot();
    let name = ObjectName {
        namespace: "mesh".into(),
        name: service.into(),
    };
    let mut request = request;
    let path = request.uri.path().to_owned();
    let found = match snapshot.routes_of(&name) {
        None => Found::NoRoutes,
        Some(table) => table.find(port, client, &request, &path),
    };
    let (rule, prefix) = match found {
        Found::NoRoutes => return vec![format!("{service} itself")],
        Found::NoMatch => return vec!["404".into()],
        Found::Rule { rule, prefix } => (rule, prefix),
    };
    if let Some(to) = &rule.filters.redirect {
        let answer = redirect(to, &request, port, &path, prefix).unwrap();
        let location = answer.headers[header::LOCATION].to_str().unwrap();
        return vec![format!("{} {location}", answer.status.as_u16())];
    }
    let Some(backend) = rule.backend(0) else {
        return vec!["500".into()];
    };
    let BackendTarget::Service { name, .. } = &backend.target else {
        return vec!["500".into()];
    };
    let mut answer = empty(StatusCode::OK);
    for filters in [&rule.filters, &backend.filters] {
        change_request(filters, &mut request, &path, prefix).unwrap();
        change_response(filters, &mut answer);
    }
    let mut all = vec![name.name.to_string(), request.uri.path().to_owned()];
    request.headers.remove(header::HOST);
    all.extend(listed(&request.headers));
    all.extend(listed(&answer.headers).iter().map(|it| format!("< {it}")));
    all
}

/// Requests to `echo:80` from its own namespace, and the beginning of what becomes of each.
#[track_caller]
fn check(routes: &str, cases: &[(&str, &[&str], &[&str])]) {
    let store = mesh(routes);
    for (line, headers, expected) in cases {
        let headers = [&["host: echo"], *headers].concat();
        let mut told = outcome(&store, "mesh", "echo", 80, request(line, &headers));
        told.truncate(expected.len().max(1));
        assert_eq!(told, *expected, "{line} {headers:?}");
    }
}

#[test]
fn without_a_route_the_service_answers_and_a_route_replaces_it() {
    check("", &[("GET /", &[], &["echo itself"])]);
    check(
        &route("HTTPRoute", &rule("", "", "echo-v1")),
        &[("GET /any", &[], &["echo-v1", "/any"])],
    );
    // Neither backends nor filters.
    check(&route("HTTPRoute", "{}"), &[("GET /", &[], &["500"])]);
    check(
        &route(
            "HTTPRoute",
            "{backendRefs: [{name: echo-v1, port: 80, weight: 0}]}",
        ),
        &[("GET /", &[], &["500"])],
    );
    let missing = "{backendRefs: [{name: missing, port: 80}]}";
    check(&route("HTTPRoute", missing), &[("GET /", &[], &["500"])]);
}

#[test]
fn matching() {
    let header = |value: &str| format!("{{headers: [{{name: version, value: {value}}}]}}");
    let rules = [
        rule(
            &format!("{}, {}", prefix("/"), header("one")),
            "",
            "echo-v1",
        ),
        rule(
            &format!("{}, {}", prefix("/v2"), header("two")),
            "",
            "echo-v2",
        ),
    ];
    check(
        &route("HTTPRoute", &rules.join(", ")),
        &[
            ("GET /", &[], &["echo-v1"]),
            ("GET /example", &[], &["echo-v1"]),
            ("GET /", &["Version: one"], &["echo-v1"]),
            ("GET /v2", &[], &["echo-v2"]),
            ("GET /v2/", &[], &["echo-v2"]),
            ("GET /v2/example", &[], &["echo-v2"]),
            ("GET /", &["Version: two"], &["echo-v2"]),
            // A path of more characters goes before any number of headers.
            ("GET /v2", &["Version: one"], &["echo-v2"]),
            ("GET /v2example", &[], &["echo-v1"]),
            ("GET /foo/v2/example", &[], &["echo-v1"]),
        ],
    );
}

#[test]
fn matching_by_query_parameters() {
    let animal = |name: &str| format!("queryParams: [{{name: animal, value: {name}}}]");
    let rules = [
        rule(&format!("{{{}}}", animal("whale")), "", "echo-v1"),
        rule(&format!("{{{}}}", animal("dolphin")), "", "echo-v2"),
        rule(
            &format!("{{path: {{value: /path1}}, {}}}", animal("dolphin")),
            "",
            "echo-v1",
        ),
        rule(
            &format!(
                "{{headers: [{{name: version, value: one}}], {}}}",
                animal("whale")
            ),
            "",
            "echo-v2",
        ),
        rule(
            "{path: {value: /path5}, queryParams: [{name: animal, value: hydra}, {name: heads, value: '9'}]}",
            "",
            "echo-v2",
        ),
    ];
    check(
        &route("HTTPRoute", &rules.join(", ")),
        &[
            ("GET /?animal=whale", &[], &["echo-v1"]),
            ("GET /?animal=dolphin", &[], &["echo-v2"]),
            (
                "GET /?animal=whale&otherparam=irrelevant",
                &[],
                &["echo-v1"],
            ),
            ("GET /?animal=dolphin&color=yellow", &[], &["echo-v2"]),
            ("GET /?color=blue", &[], &["404"]),
            ("GET /?animal=dog", &[], &["404"]),
            ("GET /?animal=whaledolphin", &[], &["404"]),
            ("GET /", &[], &["404"]),
            ("GET /path1?animal=dolphin", &[], &["echo-v1"]),
            ("GET /?animal=whale", &["version: one"], &["echo-v2"]),
            ("GET /path5?heads=9&animal=hydra", &[], &["echo-v2"]),
            ("GET /path5?animal=hydra", &[], &["404"]),
        ],
    );
}

#[test]
fn a_port_is_its_own_or_all_are() {
    let set = |value: &str| {
        format!(
            "{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x, value: {value}}}]}}}}"
        )
    };
    let one = rule("", &set("v1"), "echo-v1");
    let two = rule("", &set("v-2"), "echo-v2");
    let routes = attached("HTTPRoute", "mesh", "name: echo-v1, port: 80", &one)
        + &attached("HTTPRoute", "mesh", "name: echo-v2", &two);
    let store = mesh(&routes);
    for (service, port, expected) in [
        ("echo-v1", 80, &["echo-v1", "/", "< x: v1"][..]),
        ("echo-v1", 8080, &["echo-v1 itself"]),
        ("echo-v2", 80, &["echo-v2", "/", "< x: v-2"]),
        ("echo-v2", 8080, &["echo-v2", "/", "< x: v-2"]),
    ] {
        let told = outcome(&store, "mesh", service, port, request("GET /", &[]));
        assert_eq!(told, expected, "{service}:{port}");
    }
}

#[test]
fn a_consumers_route_is_for_its_namespace() {
    let filter =
        "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x, value: set}]}}";
    let rules = rule("", filter, "echo-v1");
    let store = mesh(&attached("HTTPRoute", "consumer", "name: echo-v1", &rules));
    for (client, expected) in [
        ("consumer", &["echo-v1", "/", "< x: set"][..]),
        ("mesh", &["echo-v1 itself"]),
    ] {
        let told = outcome(&store, client, "echo-v1", 80, request("GET /", &[]));
        assert_eq!(told, expected, "{client}");
    }
}

#[test]
fn rules_have_their_names_and_calls_their_weights() {
    let weights = "{name: split, backendRefs: [{name: echo-v1, port: 80, weight: 70}, \
                   {name: echo-v2, port: 80, weight: 30}]}";
    for (kind, of) in [
        ("HTTPRoute", RouteKind::Http),
        ("GRPCRoute", RouteKind::Grpc),
    ] {
        let store = mesh(&route(kind, weights));
        let snapshot = store.snapshot();
        let name = ObjectName {
            namespace: "mesh".into(),
            name: "echo".into(),
        };
        let request = request("POST /a.B/C", &["content-type: application/grpc"]);
        let table = snapshot.routes_of(&name).unwrap();
        let Found::Rule { rule, .. } = table.find(80, "mesh", &request, "/a.B/C") else {
            panic!("{kind}: no rule")
        };
        assert_eq!((rule.kind, rule.name.as_deref()), (of, Some("split")));
        let first = (0..1000).filter(|part| {
            let backend = rule.backend(u32::MAX / 1000 * part).unwrap();
            matches!(&backend.target, BackendTarget::Service { name, .. } if &*name.name == "echo-v1")
        });
        assert!((699..=701).contains(&first.count()), "{kind}");
    }
}
