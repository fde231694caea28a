use jiff::Timestamp;

use super::*;
use crate::discovery::{
    manifest::Format,
    store::{Change, Store},
};

const SERVICES: &str = "
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web, labels: {ambit.dev/use-waypoint: w}},
 spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: plain},
 spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: other, name: far},
 spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}}
";

const WEB: &str = "{group: '', kind: Service, name: web}";

fn route(kind: &str, parents: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{namespace: shop, name: r, \
         generation: 3}}, spec: {{parentRefs: [{parents}], rules: [{rules}]}}}}"
    )
}

fn store(objects: &[&str]) -> Store {
    let yaml = objects.join("\n---\n");
    let manifest = manifest::parse(&yaml, Format::Yaml, &mut Reducer::new("cluster.local"));
    let store = Store::default();
    let objects = manifest.unwrap().objects.into_iter();
    store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
    store
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn object(yaml: &str) -> DynamicObject {
    serde_norway::from_str(yaml).unwrap()
}

/// `Type=Status/Reason` of each parent's conditions.
fn told(parents: &[Value]) -> Vec<String> {
    let of_parent = |parent: &Value| {
        let conditions = parent["conditions"].as_array().unwrap().iter();
        let conditions = conditions.map(|it| {
            let text = |field: &str| it[field].as_str().unwrap().to_owned();
            format!("{}={}/{}", text("type"), text("status"), text("reason"))
        });
        conditions.collect::<Vec<_>>().join(" ")
    };
    parents.iter().map(of_parent).collect()
}

#[test]
fn a_route_is_told_whether_it_is_applied_and_what_it_refers_to_is_there() {
    let fine = "{backendRefs: [{name: web, port: 80}]}";
    let refused = "{filters: [{type: ExtensionRef}]}";
    let both = format!("{refused}, {fine}");
    let accepted = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    let unresolved = |reason: &str| format!("Accepted=True/Accepted ResolvedRefs=False/{reason}");
    let alone = |reason: &str| format!("Accepted=False/{reason} ResolvedRefs=True/ResolvedRefs");
    let service = |more: &str| format!("{{group: '', kind: Service, {more}}}");
    let cases: [(String, &str, Vec<String>); 13] = [
        ("{name: edge}".into(), fine, vec![]),
        (WEB.into(), fine, vec![accepted.into()]),
        (service("name: web, port: 80"), fine, vec![accepted.into()]),
        (
            service("name: web, port: 81"),
            fine,
            vec![alone("NoMatchingParent")],
        ),
        (
            service("name: web, sectionName: no"),
            fine,
            vec![alone("NoMatchingParent")],
        ),
        (service("name: gone"), fine, vec![alone("NoMatchingParent")]),
        // Nobody would apply it.
        (
            service("name: plain"),
            fine,
            vec![alone("NoMatchingParent")],
        ),
        (
            WEB.into(),
            "{backendRefs: [{name: gone, port: 80}]}",
            vec![unresolved("BackendNotFound")],
        ),
        (
            WEB.into(),
            "{backendRefs: [{namespace: other, name: far, port: 80}]}",
            vec![unresolved("RefNotPermitted")],
        ),
        (
            WEB.into(),
            "{backendRefs: [{group: a.example, kind: Bucket, name: b}]}",
            vec![unresolved("InvalidKind")],
        ),
        (WEB.into(), refused, vec![alone("UnsupportedValue")]),
        (
            WEB.into(),
            &both,
            vec![format!("{accepted} PartiallyInvalid=True/UnsupportedValue")],
        ),
        (
            format!("{{name: edge}}, {WEB}"),
            "{matches: [{path: {type: RegularExpression, value: '('}}]}",
            vec!["Accepted=False/UnsupportedValue".into()],
        ),
    ];
    for (parents_, rules, expected) in cases {
        let yaml = route("HTTPRoute", &parents_, rules);
        let store = store(&[SERVICES, &yaml]);
        let object = object(&yaml);
        let wanted = parents(&object, &store.snapshot(), &at(5));
        assert_eq!(told(&wanted), expected, "{parents_} {rules}");
        for entry in &wanted {
            let mut refs = object.data["spec"]["parentRefs"].as_array().unwrap().iter();
            assert!(refs.any(|it| *it == entry["parentRef"]), "{entry}");
            assert_eq!(entry["controllerName"], CONTROLLER);
            assert_eq!(entry["conditions"][0]["observedGeneration"], 3);
        }
    }
}

#[test]
fn where_both_kinds_are_attached_the_less_specific_one_is_told_of_the_conflict() {
    let rules = "{backendRefs: [{name: web, port: 80}]}";
    let (http, grpc) = (
        route("HTTPRoute", WEB, rules),
        route("GRPCRoute", WEB, rules),
    );
    let store = store(&[SERVICES, &http, &grpc]);
    for (yaml, expected) in [
        (
            http,
            "Accepted=False/Conflicted ResolvedRefs=True/ResolvedRefs",
        ),
        (
            grpc,
            "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
        ),
    ] {
        let wanted = parents(&object(&yaml), &store.snapshot(), &at(5));
        assert_eq!(told(&wanted), [expected]);
    }
}

#[test]
fn entries_of_others_stay_and_what_is_as_it_was_keeps_its_time() {
    let yaml = route("HTTPRoute", WEB, "{backendRefs: [{name: web, port: 80}]}");
    let store = store(&[SERVICES, &yaml]);
    let mut object = object(&yaml);
    let foreign = json!({
        "parentRef": { "name": "edge" }, "controllerName": "a.example/b", "conditions": [],
    });
    object.data["status"] = json!({ "parents": [foreign.clone()] });
    let first = parents(&object, &store.snapshot(), &at(5));
    assert_eq!(first[0], foreign);
    assert_eq!(first.len(), 2);

    object.data["status"]["parents"] = json!(first);
    assert_eq!(parents(&object, &store.snapshot(), &at(9)), first);

    object.metadata.generation = Some(4);
    let later = parents(&object, &store.snapshot(), &at(9));
    let condition = &later[1]["conditions"][0];
    assert_eq!(condition["observedGeneration"], 4);
    assert_eq!(condition["lastTransitionTime"], at(5).0.to_string());

    // What is for no Service any more says nothing.
    object.data["spec"]["parentRefs"] = json!([{ "name": "edge" }]);
    assert_eq!(parents(&object, &store.snapshot(), &at(9)), [foreign]);
}
