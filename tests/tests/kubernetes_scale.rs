//! How much of a large cluster an agent keeps.

use std::{sync::Arc, time::Duration};

use lab::{ApiServer, Lab, Mesh, Rbac, Result, deploy::kustomize, eventually, process_status};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(120);
const PODS: usize = 10_000;
/// Of the agent's own, in KiB: what users of a per-node proxy measure first.
const MOST: u64 = 40 << 10;

/// A pod as an API server tells of one: most of it is nothing that an agent needs.
fn pod(number: usize) -> Value {
    let [high, low] = [number / 250, number % 250];
    let fields: Value = (0..40)
        .map(|field| {
            (
                format!("f:field-{field}"),
                json!({"f:name": {}, "f:value": {}}),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number}"),
            "namespace": format!("team-{high}"),
            "labels": {"app": format!("app-{}", number / 5), "pod-template-hash": "6d4cf56db6"},
            "annotations": {"checksum/config": "0123456789abcdef".repeat(16)},
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": format!("app-{}-6d4cf56db6", number / 5),
                "uid": format!("00000000-0000-4000-8000-{number:012}"),
                "controller": true,
            }],
            "managedFields": [{
                "manager": "kubelet",
                "operation": "Update",
                "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:status": fields},
            }],
        },
        "spec": {
            "nodeName": format!("node-{}", number / 100),
            "serviceAccountName": format!("app-{}", number / 5),
            "containers": [{
                "name": "app",
                "image": "registry.example/app:1",
                "env": [{"name": "PATH_OF_SOMETHING", "value": "/a/rather/long/path".repeat(8)}],
            }],
        },
        "status": {
            "phase": "Running",
            "hostIP": format!("10.200.{}.{}", number / 100, 1),
            "podIP": format!("10.{}.{high}.{}", 100 + high / 250, low + 1),
            "podIPs": [{"ip": format!("10.{}.{high}.{}", 100 + high / 250, low + 1)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

#[test]
fn ten_thousand_pods_of_a_cluster_take_less_than_40_mebibytes_in_an_agent() -> Result<()> {
    let lab = Lab::builder("scale").nodes(&["a"]).build()?;
    let api = Arc::new(ApiServer::start(&lab)?);
    api.authorize(Rbac::new(&kustomize("deploy")?)?);
    for team in 0..PODS / 250 {
        api.apply(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": format!("team-{team}"), "labels": {"ambit.dev/mesh": "enabled"}},
        }))?;
    }
    for number in 0..PODS {
        api.apply(pod(number))?;
    }
    let mut mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
    let node = lab.node("a");
    let known = node.admin("/workloads")?.as_array().unwrap().len();
    assert!(known >= PODS, "{known}");
    let pid = mesh.agent("a").pid();
    // What it took to read them all, it gives back.
    let mut taken = 0;
    eventually("the agent to be small", DEADLINE, || {
        taken = process_status(pid, "RssAnon").unwrap();
        taken < MOST
    });
    println!("{PODS} pods: {} MiB", taken >> 10);
    Ok(())
}
