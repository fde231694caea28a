use super::*;
use crate::{admin::views::PolicyView, discovery::testing::snapshot};

/// A pod of namespace `shop` on node `a` unless `spec` says otherwise.
fn pod(name: &str, metadata: &str, spec: &str, addresses: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, uid: {name}, \
         {metadata}}}, spec: {{nodeName: a, {spec}}}, status: {{podIPs: [{addresses}]}}}}\n"
    )
}

#[test]
fn pods_whose_interface_is_unknown_are_named_with_the_reason() {
    let older = "creationTimestamp: '2026-01-01T00:00:00Z'";
    let newer = "creationTimestamp: '2026-02-01T00:00:00Z'";
    let left = "labels: {ambit.dev/mesh: disabled}";
    let going = "deletionTimestamp: '2026-02-01T00:00:00Z'";
    let yaml = [
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {ambit.dev/mesh: \
         enabled}}}\n"
            .to_owned(),
        pod("bound", newer, "", "{ip: 10.1.0.1}"),
        pod("twin", older, "", "{ip: 10.1.0.1}"),
        pod("early", "", "", ""),
        pod("lost", "", "", "{ip: 10.1.0.2}, {ip: 'fd00::2'}"),
        pod("left", left, "", "{ip: 10.1.0.3}"),
        pod("going", going, "", "{ip: 10.1.0.4}"),
        pod("host", "", "hostNetwork: true", "{ip: 192.0.2.1}"),
        "---\n{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: elsewhere}, spec: \
         {nodeName: b}}\n"
            .to_owned(),
    ]
    .concat();
    let why_not = |uid: &WorkloadUid| (&*uid.0 == "lost").then(|| "it's nowhere".to_owned());
    let view = CaptureView::of(&snapshot(&yaml), "a", |uid| &*uid.0 == "bound", why_not, 5);
    let waiting = [
        ("shop/early", "it has no address yet (status.podIPs)"),
        ("shop/going", "it is being deleted"),
        ("shop/left", "its interface wasn't looked for yet"),
        ("shop/lost", "it's nowhere"),
        ("shop/twin", "shop/bound has its address 10.1.0.1"),
    ];
    let waiting = waiting.map(|(name, reason)| WaitingPodView {
        name: name.into(),
        reason: reason.into(),
    });
    let expected = CaptureView {
        enrolled_pods: 5,
        captured_pods: 1,
        waiting: waiting.into(),
        entries_left_out: 5,
    };
    assert_eq!(view, expected);
}

#[test]
fn certificates_are_counted_by_what_is_wrong_with_them() {
    let certificate = |end: Option<&str>, error: Option<&str>| CertificateView {
        identity: String::new(),
        serial: None,
        not_before: None,
        not_after: end.map(Into::into),
        error: error.map(Into::into),
    };
    let all = [
        certificate(Some("2030-01-02T00:00:00.5Z"), None),
        certificate(Some("2030-01-02T00:00:00Z"), Some("no answer")),
        certificate(Some("2029-12-31T00:00:00Z"), Some("no answer")),
        certificate(None, None),
    ];
    let now = "2030-01-01T00:00:00Z".parse().unwrap();
    let expected = CertificatesView {
        valid: 2,
        missing: 2,
        failing: 2,
        soonest_expiry: Some("2030-01-02T00:00:00Z".into()),
    };
    assert_eq!(CertificatesView::of(&all, now), expected);
}

#[test]
fn policies_are_shown_with_how_far_they_reach() {
    let yaml = "
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: few, namespace: shop,
 annotations: {istio.io/dry-run: 'true'}}, spec: {action: DENY, selector: {matchLabels: {app: till}},
 rules: [{}, {to: [{operation: {ports: ['80']}}]}]}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: http, namespace: shop},
 spec: {targetRefs: [{kind: Service, name: web, group: ''}], rules: [{to: [{operation: {paths: [/a]}},
 {operation: {methods: [GET], paths: [/b]}}], when: [{key: 'request.headers[a.b]', values: [c]}]}]}}
---
{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: who, namespace: shop},
 spec: {targetRefs: [{kind: Gateway, name: way}], jwtRules: [{issuer: 'https://issuer'}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: own, namespace: shop},
 spec: {selector: {matchLabels: {app: till}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}}
";
    let snapshot = snapshot(yaml);
    let policies = snapshot.policies();
    let mut authorizations: Vec<PolicyView> = policies
        .authorizations()
        .map(|policy| PolicyView::of_authorization(policy, policies))
        .collect();
    authorizations.sort_by(|a, b| a.name.cmp(&b.name));
    let till = || [("app".to_owned(), "till".to_owned())].into();
    let few = PolicyView {
        name: "shop/few".into(),
        kind: "AuthorizationPolicy".into(),
        scope: "workloads".into(),
        selector: till(),
        targets: Vec::new(),
        action: Some("DENY".into()),
        rules: Some(2),
        http: Vec::new(),
        issuers: Vec::new(),
        dry_run: true,
        mode: None,
        ports: BTreeMap::new(),
    };
    let http = PolicyView {
        name: "shop/http".into(),
        scope: "waypoints".into(),
        selector: BTreeMap::new(),
        targets: vec!["Service/web".into()],
        action: Some("ALLOW".into()),
        rules: Some(1),
        http: ["methods", "paths", "request.headers[a.b]"]
            .map(str::to_owned)
            .into(),
        dry_run: false,
        ..few.clone()
    };
    let who = PolicyView {
        name: "shop/who".into(),
        kind: "RequestAuthentication".into(),
        targets: vec!["Gateway/way".into()],
        action: None,
        http: Vec::new(),
        issuers: vec!["https://issuer".into()],
        ..http.clone()
    };
    assert_eq!(authorizations, [few, http]);
    let authentication = policies.request_authentications().next().unwrap();
    let told = PolicyView::of_request_authentication(authentication, policies);
    assert_eq!(told, who);
    let own = policies.peer_authentications().next().unwrap();
    let expected = PolicyView {
        name: "shop/own".into(),
        kind: "PeerAuthentication".into(),
        scope: "workloads".into(),
        selector: till(),
        targets: Vec::new(),
        action: None,
        rules: None,
        http: Vec::new(),
        issuers: Vec::new(),
        dry_run: false,
        mode: Some("STRICT".into()),
        ports: [(8080, "DISABLE".into())].into(),
    };
    assert_eq!(PolicyView::of_peer_authentication(own, policies), expected);
}
