use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Manifest {
    parse(text, Format::Yaml, &mut Reducer::new("cluster.local")).unwrap()
}

fn keys(manifest: &Manifest) -> Vec<String> {
    manifest
        .objects
        .iter()
        .map(|parsed| parsed.key.to_string())
        .collect()
}

fn errors(manifest: &Manifest) -> Vec<String> {
    manifest.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn objects_come_from_documents_and_lists() {
    let cases: [(&str, &[&str], usize); 9] = [
        ("", &[], 0),
        ("---\n---\n# nothing\n", &[], 0),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a}}",
            &["Pod default/a"],
            0,
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n\
             {apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}}\n---\n",
            &["Namespace shop", "Service shop/s"],
            0,
        ),
        (
            "{apiVersion: v1, kind: List, items: [\
             {apiVersion: v1, kind: Pod, metadata: {name: a}}, \
             {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}]}",
            &["Pod default/a"],
            1,
        ),
        (
            "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}]}",
            &["Pod default/a"],
            0,
        ),
        ("{apiVersion: v1, kind: List, items: null}", &[], 0),
        (
            "{apiVersion: security.istio.io/v1beta1, kind: PeerAuthentication, metadata: {name: p}}\n---\n\
             {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: e}}",
            &["PeerAuthentication default/p", "EndpointSlice default/e"],
            0,
        ),
        (
            "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: s}}\n---\n\
             {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n---\n\
             {apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}\n---\n\
             {apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute}",
            &[],
            4,
        ),
    ];
    for (text, expected, ignored) in cases {
        let manifest = read(text);
        assert_eq!(errors(&manifest), [""; 0], "{text}");
        assert_eq!(keys(&manifest), expected, "{text}");
        assert_eq!(manifest.ignored, ignored, "{text}");
    }
}

#[test]
fn error_names_object_and_field_and_what_was_expected() {
    let cases = [
        (
            "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cart}, \
             spec: {containers: [{ports: [{containerPort: http}]}]}}",
            "Pod shop/cart: spec.containers[0].ports[0].containerPort: invalid type: \
             string \"http\", expected i32",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cart}, \
             status: {podIP: 10.0.0}}",
            "Pod shop/cart: status.podIP: \"10.0.0\" is not an IP address",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {ambit.dev/mesh: true}}}",
            "Namespace shop: metadata.labels.ambit.dev/mesh: invalid type: boolean `true`, \
             expected a string",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {ambit.dev/mesh: 'on'}}}",
            "Namespace shop: metadata.labels[ambit.dev/mesh]: \"on\" is not \"enabled\" or \
             \"disabled\"",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: {port: 80}}}",
            "Service default/s: spec.ports: invalid type: map, expected a sequence",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice, metadata: {name: e}}",
            "EndpointSlice default/e: apiVersion \"discovery.k8s.io/v1beta1\" is not understood; \
             write \"discovery.k8s.io/v1\"",
        ),
        (
            "{kind: Pod}",
            "object 1 of the file: apiVersion: is missing or not text",
        ),
        (
            "{apiVersion: v1}",
            "object 1 of the file: kind: is missing or not text",
        ),
        (
            "{apiVersion: v1, kind: Pod}",
            "object 1 of the file: metadata: is missing or not an object",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {}}",
            "object 1 of the file: metadata.name: is missing or not text",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: 5}}",
            "object 1 of the file: metadata.namespace: is missing or not text",
        ),
        ("[a]", "object 1 of the file: document: is not an object"),
        (
            "{kind: List, items: 5}",
            "object 1 of the file: items: is not a list",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(&read(text)), [expected], "{text}");
    }
}

#[test]
fn bad_object_spoils_no_other() {
    let manifest = read(
        "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: b}, status: {podIP: x}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: c}}",
    );
    assert_eq!(keys(&manifest), ["Pod default/a", "Pod default/c"]);
    let broken: Vec<_> = manifest
        .broken
        .iter()
        .map(|key| key.as_ref().map(ToString::to_string))
        .collect();
    assert_eq!(broken, [Some("Pod default/b".to_owned()), None]);
    assert_eq!(
        errors(&manifest)[1],
        "object 3 of the file: metadata.name: is missing or not text"
    );
}

#[test]
fn text_that_cannot_be_read_is_an_error_with_its_place() {
    let yaml = parse("a: [1\nb: 2", Format::Yaml, &mut Reducer::new("d"))
        .unwrap_err()
        .to_string();
    assert!(
        yaml.starts_with("not a manifest: ") && yaml.contains("line 2"),
        "{yaml}"
    );
    let json = parse("{\n 1", Format::Json, &mut Reducer::new("d"))
        .unwrap_err()
        .to_string();
    assert!(
        json.starts_with("not a manifest: ") && json.contains("line 2"),
        "{json}"
    );
}

#[test]
fn json_may_have_tabs_and_may_be_empty() {
    let text =
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}\n}";
    let mut reducer = Reducer::new("d");
    assert_eq!(
        keys(&parse(text, Format::Json, &mut reducer).unwrap()),
        ["Pod default/a"]
    );
    assert_eq!(
        keys(&parse(" \n", Format::Json, &mut reducer).unwrap()),
        [""; 0]
    );
}

#[test]
fn hash_tells_changed_objects_from_unchanged_ones() {
    let hash = |text: &str| read(text).objects[0].hash;
    let one = hash("{apiVersion: v1, kind: Pod, metadata: {name: a}}");
    assert_eq!(
        one,
        hash("metadata:\n  name: a\nkind: Pod\napiVersion: v1\n")
    );
    assert_ne!(
        one,
        hash("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {b: c}}}")
    );
}

/// Any value, often with the keys that mean something somewhere.
fn value() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "name",
            "namespace",
            "labels",
            "annotations",
            "ambit.dev/mesh",
            "ports",
            "port",
            "targetPort",
            "podIP",
            "podIPs",
            "ip",
            "containers",
            "containerPort",
            "clusterIPs",
            "selector",
            "endpoints",
            "addresses",
            "conditions",
            "ownerReferences",
            "kind",
            "ambit.dev/exclude-outbound-cidrs",
            "metadata",
            "items",
        ])
        .prop_map(str::to_owned),
        ".{0,5}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9.:/,a-f]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        crate::fuzzing::manifest::check(&text);
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(text in "[-a&*!{}\\[\\]:, \n\"'|>?#%@]{0,60}") {
        crate::fuzzing::manifest::check(&text);
    }

    #[test]
    fn every_object_is_used_or_reported_or_ignored(
        kind in prop::sample::select(vec![
            ("v1", "Pod"), ("v1", "Service"), ("v1", "Namespace"), ("v1", "Node"),
            ("discovery.k8s.io/v1", "EndpointSlice"), ("v1", "Secret"),
        ]),
        (metadata, spec, status) in (value(), value(), value()),
    ) {
        let (api_version, kind) = kind;
        let document = serde_json::json!({
            "apiVersion": api_version, "kind": kind, "metadata": metadata,
            "spec": spec, "status": status, "endpoints": spec, "ports": status,
        });
        let manifest =
            parse(&document.to_string(), Format::Json, &mut Reducer::new("d")).unwrap();
        let seen = manifest.objects.len() + manifest.broken.len() + manifest.ignored;
        prop_assert_eq!(seen, 1);
        prop_assert!(manifest.errors.len() >= manifest.broken.len());
    }
}

#[test]
fn errors_name_object_and_field_as_far_as_they_are_known() {
    let cases = [
        ("a: {", None, None),
        ("kind: Pod", None, Some("apiVersion")),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, status: {podIP: ten}}",
            Some("Pod default/p"),
            Some("status.podIP"),
        ),
        (
            "{apiVersion: v2, kind: Pod, metadata: {name: p}}",
            Some("Pod default/p"),
            Some("apiVersion"),
        ),
        (
            "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
             metadata: {name: p}, spec: {action: MAYBE}}",
            Some("AuthorizationPolicy default/p"),
            Some("spec.action"),
        ),
    ];
    for (yaml, object, field) in cases {
        let error = match parse(yaml, Format::Yaml, &mut Reducer::new("cluster.local")) {
            Ok(manifest) => manifest.errors.into_iter().next().unwrap(),
            Err(error) => error,
        };
        assert_eq!(
            (error.object().as_deref(), error.field()),
            (object, field),
            "{yaml}"
        );
    }
}

#[test]
fn a_gateway_of_no_use_is_told_of_by_field_and_those_of_other_classes_are_left_alone() {
    let gateway = |metadata: &str, class: &str, listeners: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: Gateway, metadata: {{namespace: \
             shop, name: w, {metadata}}}, spec: {{gatewayClassName: {class}, \
             listeners: [{listeners}]}}}}"
        )
    };
    const GOOD: &str = "{name: mesh, port: 15008, protocol: HBONE}";
    const CURE: &str = "a waypoint has one listener: {name: mesh, port: 15008, protocol: HBONE}";
    let http = "{name: web, port: 80, protocol: HTTP}";
    let both = format!("{GOOD}, {GOOD}");
    for (metadata, class, listeners, is_usable, expected) in [
        ("", "ambit-waypoint", GOOD, true, None),
        ("", "istio", http, true, None),
        ("", "ambit-waypoint", "", false, Some(format!("spec.listeners: there are 0; {CURE}"))),
        ("", "ambit-waypoint", &*both, false, Some(format!("spec.listeners: there are 2; {CURE}"))),
        (
            "",
            "ambit-waypoint",
            http,
            false,
            Some(format!("spec.listeners[0].protocol: \"HTTP\" is not supported; {CURE}")),
        ),
        (
            "",
            "ambit-waypoint",
            "{port: 15009, protocol: HBONE}",
            false,
            Some(format!("spec.listeners[0].port: 15009 is not 15008; {CURE}")),
        ),
        (
            "labels: {istio.io/waypoint-for: pods}",
            "ambit-waypoint",
            GOOD,
            true,
            Some(
                "metadata.labels[istio.io/waypoint-for]: \"pods\" is not \"service\", \"workload\", \
                 \"all\" or \"none\"; it counts as \"service\""
                    .to_owned(),
            ),
        ),
        (
            "annotations: {ambit.dev/waypoint-port: '0'}",
            "ambit-waypoint",
            GOOD,
            false,
            Some(
                "metadata.annotations[ambit.dev/waypoint-port]: \"0\" is not a port between 1 and \
                 65533: it and the next two are taken"
                    .to_owned(),
            ),
        ),
    ] {
        let manifest = read(&gateway(metadata, class, listeners));
        let expected = expected.map(|reason| format!("Gateway shop/w: {reason}"));
        assert_eq!(errors(&manifest), Vec::from_iter(expected));
        assert_eq!(manifest.objects.len(), usize::from(is_usable), "{metadata} {listeners}");
    }
}
