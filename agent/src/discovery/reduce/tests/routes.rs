use super::*;

/// What is told of route `shop/canary` with these parents.
fn told(parents: &str) -> Vec<String> {
    let yaml = format!(
        "{{metadata: {{namespace: shop, name: canary}}, spec: {{parentRefs: [{parents}]}}}}"
    );
    let mut issues = Vec::new();
    let route = serde_norway::from_str(&yaml).unwrap();
    reducer().route(&route, &mut issues).unwrap();
    issues.iter().map(ToString::to_string).collect()
}

#[test]
fn parents_that_are_services_are_told_of_and_others_are_none_of_ours() {
    let cases: [(&str, &[(usize, &str)]); 8] = [
        ("", &[]),
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
            &[(0, "shop/web")],
        ),
        (
            "{group: '', kind: Service, namespace: store, name: web}",
            &[(0, "store/web")],
        ),
        (
            "{group: '', kind: Service, name: a}, {name: edge}, {group: '', kind: Service, name: b}",
            &[(0, "shop/a"), (2, "shop/b")],
        ),
    ];
    for (parents, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|(index, service)| {
                format!(
                    "spec.parentRefs[{index}]: Service {service}: waypoints pass connections on as \
                     they are, so this route isn't applied yet, and requests go where the Service \
                     says; remove the reference, and give each backend a Service that clients ask \
                     for by name"
                )
            })
            .collect();
        assert_eq!(told(parents), expected, "{parents}");
    }
}

#[test]
fn a_route_may_be_without_spec_but_not_without_name() {
    for (yaml, expected) in [
        ("{metadata: {namespace: shop, name: r}}", None),
        ("{metadata: {namespace: shop, name: r}, spec: {}}", None),
        (
            "{spec: {parentRefs: []}}",
            Some("metadata.name: is missing"),
        ),
    ] {
        let mut issues = Vec::new();
        let route = serde_norway::from_str(yaml).unwrap();
        let error = reducer().route(&route, &mut issues).err();
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            expected,
            "{yaml}"
        );
        assert_eq!(issues, []);
    }
}
