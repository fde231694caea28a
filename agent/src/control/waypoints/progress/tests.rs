use kube::core::Status;
use serde_json::json;

use super::*;

fn gateway() -> Gateway {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": "w", "uid": "1" },
        "spec": {},
    }))
    .unwrap()
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_object_is_its_controllers() {
    let owner = |kind: &str, name: &str, uid: &str, controls: bool| {
        json!([{
            "apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": controls,
        }])
    };
    let table = [
        (json!(null), Whose::Foreign),
        (owner("Gateway", "w", "1", true), Whose::Ours),
        (owner("Gateway", "w", "1", false), Whose::Foreign),
        (owner("Gateway", "w", "0", true), Whose::OfEarlier),
        (owner("Gateway", "other", "0", true), Whose::Foreign),
        (owner("ReplicaSet", "w", "0", true), Whose::Foreign),
    ];
    for (owners, expected) in table {
        let found = object(json!({ "metadata": { "name": "w", "ownerReferences": owners } }));
        assert_eq!(whose(&gateway(), &found), expected, "{owners}");
    }
    for (whose, is_final) in [(Whose::Foreign, true), (Whose::OfEarlier, false)] {
        let told = taken(&gateway(), "Service", "w", whose);
        assert_eq!(matches!(told, Progress::Taken(_)), is_final);
    }
}

#[test]
fn a_waypoint_serves_once_a_pod_is_ready_and_its_service_has_an_address() {
    let failure = |kind: &str, status: &str| json!({ "conditions": [{ "type": kind, "status": status, "message": "why" }] });
    let running = |addresses: &[&str]| Progress::Running {
        addresses: addresses.iter().map(ToString::to_string).collect(),
        hostname: "w.shop.svc".into(),
    };
    let pending = |why: &str| Progress::Pending(format!("none of 2 pods is ready{why}"));
    let ips = json!(["10.0.0.7", "fd00:0::7"]);
    let table = [
        (json!({}), ips.clone(), pending("")),
        (
            failure("Progressing", "False"),
            ips.clone(),
            pending(": why"),
        ),
        (failure("Progressing", "True"), ips.clone(), pending("")),
        (
            failure("ReplicaFailure", "True"),
            ips.clone(),
            Progress::NoRoom("its pods can't be made: why".into()),
        ),
        (
            json!({ "readyReplicas": 1 }),
            json!(["None"]),
            Progress::NoAddress,
        ),
        (
            json!({ "readyReplicas": 1 }),
            json!(null),
            Progress::NoAddress,
        ),
        (
            json!({ "readyReplicas": 1 }),
            ips,
            running(&["10.0.0.7", "fd00::7"]),
        ),
    ];
    for (status, addresses, expected) in table {
        let deployment = object(json!({
            "metadata": {}, "spec": { "replicas": 2 }, "status": status,
        }));
        let service = object(json!({ "metadata": {}, "spec": { "clusterIPs": addresses } }));
        assert_eq!(
            of_objects(&gateway(), &service, &deployment),
            expected,
            "{status}"
        );
    }
}

#[test]
fn only_a_refusal_that_lasts_is_told_in_a_status() {
    let refuse = |code: u16, message: &str| {
        let status = Status::failure(message, "x").with_code(code);
        refused(&kube::Error::Api(status.boxed()))
    };
    let words = "the API server refuses: no";
    assert_eq!(refuse(403, "no"), Some(Progress::Pending(words.into())));
    assert_eq!(refuse(422, "no"), Some(Progress::Pending(words.into())));
    assert!(matches!(
        refuse(403, "exceeded quota: x"),
        Some(Progress::NoRoom(_))
    ));
    for passing in [401, 409, 429, 500, 503] {
        assert_eq!(refuse(passing, "no"), None, "{passing}");
    }
}
