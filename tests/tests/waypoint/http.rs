//! Requests through a waypoint: routes, policies, and what becomes of connections.

use lab::{Lab, Result};

use crate::store::{Store, manifest};

#[test]
fn requests_go_where_routes_say() -> Result<()> {
    let lab = Lab::builder("routes").build()?;
    let store = Store::open(&lab)?;
    let _mesh = store.mesh(&lab)?;
    // Without a route, to any endpoint of the service.
    let answered = store.answers("/", &[], 20)?;
    assert!(
        answered.contains("v1") && answered.contains("v2"),
        "{answered}"
    );

    lab.apply(
        "route.yaml",
        &manifest(
            "HTTPRoute",
            "reviews",
            r#"
  parentRefs: [{group: "", kind: Service, name: reviews, port: 80}]
  rules:
  - matches: [{headers: [{name: x-canary, value: "yes"}]}]
    backendRefs: [{name: reviews-v2, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-test, value: rewritten}]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-route, value: old}]}
    backendRefs: [{name: reviews-v1, port: 80}]
  - matches: [{path: {type: Exact, value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /there}, statusCode: 301}
  - matches: [{path: {type: PathPrefix, value: /split}}]
    backendRefs: [{name: reviews-v1, port: 80, weight: 1}, {name: reviews-v2, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /nowhere}}]
    backendRefs: [{name: missing, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /v1}}]
    backendRefs: [{name: reviews-v1, port: 80}]
"#,
        ),
    )?;
    store.eventually("the route", "/v1", "v1 GET /v1");
    for (path, arguments, expected) in [
        ("/any", &["-H", "x-canary: yes"][..], "v2 GET /any"),
        ("/old/thing?a=b", &[], "v1 GET /new/thing?a=b"),
        ("/old/thing", &[], "x=rewritten"),
        ("/old/thing", &["-i"], "x-route: old"),
        ("/old/../v1//x", &["--path-as-is"], "v1 GET /v1/x"),
        ("/moved", &["-i"], "301"),
        ("/moved", &["-i"], "location: http://reviews/there"),
        ("/nowhere", &["-i"], "500"),
        ("/unmatched", &["-i"], "404"),
        ("/v1", &["-d", "body"], "v1 POST /v1"),
        ("/v1%2fx", &["-i"], "400"),
        ("/v1", &[], "URI=spiffe://cluster.local/ns/shop/sa/friend"),
    ] {
        let answer = store.ask(&store.friend, path, arguments)?;
        let found = answer
            .to_ascii_lowercase()
            .contains(&expected.to_ascii_lowercase());
        assert!(
            found,
            "{path} {arguments:?}: {answer:?} without {expected:?}"
        );
    }
    let split = store.answers("/split", &[], 40)?;
    assert!(split.contains("v1") && split.contains("v2"), "{split}");
    Ok(())
}

#[test]
fn policies_decide_each_request_by_method_path_and_client() -> Result<()> {
    let lab = Lab::builder("l7-policy").build()?;
    let store = Store::open(&lab)?;
    let _mesh = store.mesh(&lab)?;
    store.eventually("the service", "/", "GET /");
    lab.apply(
        "policy.yaml",
        r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/friend]}}]
    to: [{operation: {methods: [GET], paths: ["/public/*"]}}]
"#,
    )?;
    store.eventually("the policy", "/private", "RBAC: access denied");
    let (allowed, refused) = ("GET /public/x", "RBAC: access denied");
    for (who, path, arguments, expected) in [
        (&store.friend, "/public/x", &[][..], allowed),
        (&store.friend, "/public//x", &[], allowed),
        (&store.friend, "/public/x", &["-d", "body"], refused),
        (
            &store.friend,
            "/public/../private",
            &["--path-as-is"],
            refused,
        ),
        (
            &store.friend,
            "/public/%2e%2e/private",
            &["--path-as-is"],
            refused,
        ),
        (&store.friend, "/PUBLIC/x", &[], refused),
        (
            &store.friend,
            "/public/..%2fprivate",
            &["--path-as-is"],
            "escaped slash",
        ),
        (&store.stranger, "/public/x", &[], refused),
        (
            &store.stranger,
            "/public/x",
            &[
                "-H",
                "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/friend",
            ],
            refused,
        ),
    ] {
        let answer = store.ask(who, path, arguments)?;
        assert!(
            answer.contains(expected),
            "{path} {arguments:?}: {answer:?}"
        );
    }
    Ok(())
}

#[test]
fn a_request_finds_another_endpoint_where_one_is_gone() -> Result<()> {
    let lab = Lab::builder("retried").build()?;
    let mut store = Store::open(&lab)?;
    let _mesh = store.mesh(&lab)?;
    store.eventually("the service", "/", "GET /");
    // It is among the endpoints still, and nobody listens there any more.
    store.servers.remove(0).kill();
    let answered = store.answers("/", &["-d", "body"], 20)?;
    assert_eq!(answered.matches("v2 POST /").count(), 20, "{answered}");
    Ok(())
}
