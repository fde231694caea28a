use serde_json::{Value, json};

use super::*;

fn gateway(fields: &Value) -> Gateway {
    let mut spec = fields.clone();
    spec["gatewayClassName"] = json!("ambit-waypoint");
    if spec["listeners"].is_null() {
        spec["listeners"] = json!([mesh()]);
    }
    let metadata = json!({ "namespace": "shop", "name": "w" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn mesh() -> Value {
    json!({ "name": "mesh", "port": 15008, "protocol": "HBONE" })
}

fn listener(name: &str, port: u16, protocol: &str) -> Value {
    json!({ "name": name, "port": port, "protocol": protocol })
}

/// `+Reason` or `-Reason`, of a verdict whose message says what to do where.
fn told(verdict: &Verdict) -> String {
    assert!(!verdict.message.is_empty(), "{verdict:?}");
    format!(
        "{}{}",
        if verdict.holds { '+' } else { '-' },
        verdict.reason
    )
}

#[test]
fn a_gateway_is_accepted_if_a_waypoint_can_be_what_it_asks_for() {
    let table = [
        (json!({}), "+Accepted", ""),
        (json!({ "addresses": [] }), "+Accepted", ""),
        (
            json!({ "addresses": [{ "type": "IPAddress" }] }),
            "+Accepted",
            "",
        ),
        (
            json!({ "addresses": [{ "value": "10.0.0.9" }] }),
            "-UnsupportedAddress",
            "10.0.0.9",
        ),
        (
            json!({ "addresses": [{ "type": "Hostname", "value": "a.example" }] }),
            "-UnsupportedAddress",
            "Hostname",
        ),
        (
            json!({ "infrastructure": { "labels": { "a": "b" } } }),
            "+Accepted",
            "",
        ),
        (
            json!({ "infrastructure": { "parametersRef": { "name": "x" } } }),
            "-InvalidParameters",
            "parametersRef",
        ),
        (json!({ "listeners": [] }), "-ListenersNotValid", "15008"),
        (
            json!({ "listeners": [listener("web", 80, "HTTP")] }),
            "-ListenersNotValid",
            "web",
        ),
        (
            json!({ "listeners": [mesh(), listener("web", 80, "HTTP")] }),
            "+ListenersNotValid",
            "web",
        ),
    ];
    for (spec, expected, words) in table {
        let judgement = judge(&gateway(&spec));
        assert_eq!(told(&judgement.accepted), expected, "{spec}");
        assert!(judgement.accepted.message.contains(words), "{judgement:?}");
    }
}

#[test]
fn a_name_must_be_one_that_a_service_can_have() {
    let long = "w".repeat(64);
    for (name, expected) in [
        ("w", "+Accepted"),
        ("w-1", "+Accepted"),
        (&long[1..], "+Accepted"),
        (&long, "-Invalid"),
        ("a.b", "-Invalid"),
        ("1w", "-Invalid"),
    ] {
        let mut gateway = gateway(&json!({}));
        gateway.metadata.name = Some(name.into());
        assert_eq!(told(&judge(&gateway).accepted), expected, "{name}");
    }
}

#[test]
fn replicas_are_a_number_from_one() {
    for (text, expected, replicas) in [
        (None, "+Accepted", None),
        (Some("1"), "+Accepted", Some(1)),
        (Some("12"), "+Accepted", Some(12)),
        (Some("0"), "-Invalid", None),
        (Some("-1"), "-Invalid", None),
        (Some("many"), "-Invalid", None),
        (Some("70000"), "-Invalid", None),
    ] {
        let mut gateway = gateway(&json!({}));
        let annotation = text.map(|text: &str| [(REPLICAS.to_owned(), text.to_owned())].into());
        gateway.metadata.annotations = annotation;
        let judgement = judge(&gateway);
        assert_eq!(told(&judgement.accepted), expected, "{text:?}");
        assert_eq!(judgement.replicas, replicas, "{text:?}");
    }
}

#[test]
fn each_listener_is_told_what_is_wrong_with_it() {
    let with = |field: &str, value: Value| {
        let mut mesh = mesh();
        mesh[field] = value;
        mesh
    };
    let named = |name: &str, hostname: &str| {
        let mut other = with("hostname", json!(hostname));
        other["name"] = json!(name);
        other
    };
    let good = "+Accepted +ResolvedRefs -NoConflicts";
    let table = [
        (json!([mesh()]), vec![good]),
        (json!([with("hostname", json!("a.example"))]), vec![good]),
        (
            json!([listener("web", 15008, "HTTP")]),
            vec!["-UnsupportedProtocol +ResolvedRefs -NoConflicts"],
        ),
        (
            json!([mesh(), listener("more", 15009, "HBONE")]),
            vec![good, "-PortUnavailable +ResolvedRefs -NoConflicts"],
        ),
        (
            json!([mesh(), listener("tcp", 15008, "TCP")]),
            vec![
                "-ProtocolConflict +ResolvedRefs +ProtocolConflict",
                "-UnsupportedProtocol +ResolvedRefs +ProtocolConflict",
            ],
        ),
        (
            json!([named("a", "a.example"), named("b", "b.example")]),
            vec!["-HostnameConflict +ResolvedRefs +HostnameConflict"; 2],
        ),
        (
            json!([with("tls", json!({ "certificateRefs": [{ "name": "x" }] }))]),
            vec!["+Accepted -InvalidCertificateRef -NoConflicts"],
        ),
        (
            json!([with(
                "allowedRoutes",
                json!({ "kinds": [{ "kind": "TCPRoute" }] })
            )]),
            vec!["+Accepted -InvalidRouteKinds -NoConflicts"],
        ),
        (
            json!([with(
                "allowedRoutes",
                json!({ "namespaces": { "from": "All" } })
            )]),
            vec![good],
        ),
    ];
    for (listeners, expected) in table {
        let judgement = judge(&gateway(&json!({ "listeners": listeners })));
        let all: Vec<String> = judgement
            .listeners
            .iter()
            .map(|it| {
                [&it.accepted, &it.resolved, &it.conflicted]
                    .map(told)
                    .join(" ")
            })
            .collect();
        assert_eq!(all, expected, "{listeners}");
    }
}
