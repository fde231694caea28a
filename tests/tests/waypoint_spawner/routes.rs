//! What control tells routes of themselves.

use lab::{Lab, Result, eventually};
use serde_json::{Value, json};

use super::cluster::{CONTROL, Cluster, DEADLINE, told};

const FINE: &str = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": "shop", "name": name, "labels": { "ambit.dev/use-waypoint": "w" },
        },
        "spec": { "clusterIP": "10.96.0.77", "ports": [{ "port": 80 }] },
    })
}

/// Of the shop's Service `web`, to `backend`; and of a Gateway that is somebody else's.
fn route(kind: &str, backend: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": { "namespace": "shop", "name": "r" },
        "spec": {
            "parentRefs": [
                { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" },
                { "group": "", "kind": "Service", "name": "web" },
            ],
            "rules": [{ "backendRefs": [
                { "group": "", "kind": "Service", "name": backend, "port": 80 },
            ] }],
        },
    })
}

/// What the route's own entry says.
fn entry(cluster: &Cluster<'_>, kind: &str) -> Value {
    let route = cluster.object(kind, "r").unwrap_or_default();
    let parents = route["status"]["parents"].as_array().into_iter().flatten();
    let mut ours = parents.filter(|it| it["controllerName"] == "ambit.dev/waypoint");
    ours.next().cloned().unwrap_or_default()
}

#[track_caller]
fn await_told(cluster: &Cluster<'_>, kind: &str, expected: &str) {
    eventually(&format!("{kind} to say {expected}"), DEADLINE, || {
        told(&entry(cluster, kind)["conditions"]) == expected
    });
}

#[test]
fn a_route_says_whether_it_is_applied_and_follows_what_it_refers_to() -> Result<()> {
    let lab = Lab::builder("routed").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    cluster.api.apply(service("web"))?;
    cluster.api.apply(route("HTTPRoute", "canary"))?;
    let missing = "Accepted=True/Accepted ResolvedRefs=False/BackendNotFound";
    await_told(&cluster, "HTTPRoute", missing);
    let said = entry(&cluster, "HTTPRoute");
    let expected = json!({ "group": "", "kind": "Service", "name": "web" });
    assert_eq!(said["parentRef"], expected);
    assert_eq!(said["conditions"][0]["observedGeneration"], 1);

    // Nothing of the route changes here.
    cluster.api.apply(service("canary"))?;
    await_told(&cluster, "HTTPRoute", FINE);

    // An entry of another controller stays.
    let foreign = json!({
        "parentRef": { "name": "edge" }, "controllerName": "a.example/b",
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2024-01-01T00:00:00Z",
        }],
    });
    cluster.change("HTTPRoute", "r", |route| {
        let parents = route["status"]["parents"].as_array_mut();
        parents.expect("it has a status").push(foreign.clone());
    })?;
    cluster.change("HTTPRoute", "r", |route| {
        route["spec"]["rules"][0]["filters"] = json!([{ "type": "ExtensionRef" }]);
    })?;
    let refused = "Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs";
    await_told(&cluster, "HTTPRoute", refused);
    let said = entry(&cluster, "HTTPRoute");
    assert_eq!(said["conditions"][0]["observedGeneration"], 2);
    let status = cluster.object("HTTPRoute", "r").unwrap_or_default()["status"].clone();
    let parents = status["parents"].as_array().cloned().unwrap_or_default();
    assert!(parents.contains(&foreign), "{status}");

    // The other kind comes to the same port, and goes again.
    cluster.api.apply(route("HTTPRoute", "web"))?;
    await_told(&cluster, "HTTPRoute", FINE);
    cluster.api.apply(route("GRPCRoute", "web"))?;
    await_told(&cluster, "GRPCRoute", FINE);
    let conflict = "Accepted=False/Conflicted ResolvedRefs=True/ResolvedRefs";
    await_told(&cluster, "HTTPRoute", conflict);
    cluster.api.delete("GRPCRoute", "shop", "r")?;
    await_told(&cluster, "HTTPRoute", FINE);

    let refused = |seen: &lab::RequestSeen| seen.user == CONTROL && seen.status == 403;
    let refused: Vec<_> = cluster.api.requests().into_iter().filter(refused).collect();
    assert_eq!(refused, []);
    Ok(())
}
