use serde_json::{Value, json};

use super::*;

fn gateway(infrastructure: &Value) -> Gateway {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": "w", "uid": "1" },
        "spec": { "gatewayClassName": CLASS, "infrastructure": infrastructure },
    }))
    .unwrap()
}

fn common() -> Common {
    Common {
        image: Image {
            name: "r.example/ambit:1".into(),
            pull_policy: Some("Always".into()),
            pull_secrets: vec!["pull".into()],
        },
        ca_address: "ambit-control.ambit-system.svc:15012".into(),
        trust_domain: "example.org".into(),
        arguments: vec!["--otlp-endpoint=http://collector:4317/".into()],
        trust_bundle: "roots".into(),
    }
}

fn made(infrastructure: &Value, replicas: Option<i64>) -> BTreeMap<String, Value> {
    let objects = objects(&gateway(infrastructure), &common(), replicas).into_iter();
    objects.map(|it| (it.resource.kind, it.object)).collect()
}

#[test]
fn every_object_belongs_to_the_gateway_and_bears_its_name() {
    let all = made(&json!({}), None);
    let kinds: Vec<&str> = all.keys().map(String::as_str).collect();
    let expected = [
        "ConfigMap",
        "Deployment",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds, expected);
    for (kind, object) in &all {
        let metadata = &object["metadata"];
        let name = if kind == "ConfigMap" {
            "w-trust-bundle"
        } else {
            "w"
        };
        assert_eq!(
            (&metadata["namespace"], &metadata["name"]),
            (&json!("shop"), &json!(name))
        );
        let owner = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "w", "uid": "1",
            "controller": true, "blockOwnerDeletion": true,
        }]);
        assert_eq!(metadata["ownerReferences"], owner, "{kind}");
        assert_eq!(metadata["labels"][GATEWAY_NAME], "w", "{kind}");
        assert_eq!(metadata["labels"][GATEWAY_CLASS_NAME], CLASS, "{kind}");
    }
}

#[test]
fn what_the_infrastructure_is_to_bear_is_on_objects_and_pods_but_not_instead_of_ours() {
    let infrastructure = json!({
        "labels": { "team": "till", GATEWAY_NAME: "other", "ambit.dev/mesh": "enabled" },
        "annotations": { "cost": "1" },
    });
    let all = made(&infrastructure, None);
    let pod = &all["Deployment"]["spec"]["template"]["metadata"];
    for metadata in all.values().map(|object| &object["metadata"]).chain([pod]) {
        assert_eq!(metadata["labels"]["team"], "till");
        assert_eq!(metadata["labels"][GATEWAY_NAME], "w");
        assert_eq!(metadata["annotations"], json!({ "cost": "1" }));
    }
    assert_eq!(pod["labels"]["ambit.dev/mesh"], "disabled");
}

#[test]
fn what_selects_pods_selects_those_of_the_gateway() {
    let all = made(&json!({}), None);
    let selector = json!({ GATEWAY_NAME: "w" });
    assert_eq!(all["Service"]["spec"]["selector"], selector);
    assert_eq!(
        all["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        selector
    );
    assert_eq!(
        all["Deployment"]["spec"]["selector"]["matchLabels"],
        selector
    );
}

#[test]
fn there_are_two_waypoints_unless_somebody_says_otherwise() {
    for (replicas, expected) in [(None, 2), (Some(5), 5), (Some(0), 0)] {
        let all = made(&json!({}), replicas);
        assert_eq!(all["Deployment"]["spec"]["replicas"], expected);
    }
}

#[test]
fn a_pod_runs_the_role_for_its_gateway_with_no_rights_on_its_node() {
    let all = made(&json!({}), None);
    let pod = &all["Deployment"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let collector = "--otlp-endpoint=http://collector:4317/";
    assert_eq!(container["args"], json!(["waypoint", collector]));
    assert_eq!(container["image"], "r.example/ambit:1");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "pull" }]));
    let env = container["env"].as_array().unwrap().iter();
    let env: BTreeMap<_, _> = env
        .filter_map(|it| Some((it["name"].as_str()?, it["value"].as_str()?)))
        .collect();
    let expected = [
        ("AMBIT_CA_ADDRESS", "ambit-control.ambit-system.svc:15012"),
        ("AMBIT_DRAIN", "30s"),
        ("AMBIT_GATEWAY", "shop/w"),
        ("AMBIT_SOURCE", "kubernetes"),
        ("AMBIT_TRUST_DOMAIN", "example.org"),
    ];
    assert_eq!(env, expected.into());
    assert_eq!(pod["serviceAccountName"], "w");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        container["securityContext"]["capabilities"],
        json!({ "drop": ["ALL"] })
    );
    assert!(pod["terminationGracePeriodSeconds"].as_i64() > Some(30));
    let volumes = pod["volumes"].as_array().unwrap();
    assert_eq!(
        volumes[1]["configMap"]["name"],
        all["ConfigMap"]["metadata"]["name"]
    );
    assert_eq!(
        all["ConfigMap"]["data"],
        json!({ "trust-bundle.pem": "roots" })
    );
}
