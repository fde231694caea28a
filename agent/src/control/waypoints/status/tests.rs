use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::control::waypoints::accept::judge;

fn at(text: &str) -> Time {
    Time(Timestamp::from_str(text).unwrap())
}

fn gateway(protocols: &[&str]) -> Gateway {
    let listeners: Vec<Value> = protocols
        .iter()
        .map(|protocol| json!({ "name": protocol, "port": 15008, "protocol": protocol }))
        .collect();
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": "w", "generation": 3 },
        "spec": { "gatewayClassName": "ambit-waypoint", "listeners": listeners },
    }))
    .unwrap()
}

fn running() -> Progress {
    Progress::Running {
        addresses: vec!["10.0.0.7".into(), "fd00::7".into()],
        hostname: "w.shop.svc".into(),
    }
}

fn of(gateway: &Gateway, progress: &Progress, now: &str) -> GatewayStatus {
    status(gateway, &judge(gateway), progress, &at(now))
}

/// `Type=Status/Reason` of each condition.
fn told(conditions: &[Condition]) -> String {
    let told: Vec<String> = conditions
        .iter()
        .map(|it| format!("{}={}/{}", it.type_, it.status, it.reason))
        .collect();
    told.join(" ")
}

#[test]
fn conditions_say_how_far_a_waypoint_is() {
    let table = [
        (running(), "True/Programmed", "True/Programmed"),
        (
            Progress::Pending("x".into()),
            "False/Pending",
            "False/Pending",
        ),
        (
            Progress::NoRoom("x".into()),
            "False/NoResources",
            "False/Pending",
        ),
        (
            Progress::NoAddress,
            "False/AddressNotAssigned",
            "False/Pending",
        ),
        (
            Progress::Taken("x".into()),
            "False/Invalid",
            "False/Invalid",
        ),
    ];
    for (progress, whole, part) in table {
        let status = of(&gateway(&["HBONE"]), &progress, "2026-01-01T00:00:00Z");
        let expected = format!("Accepted=True/Accepted Programmed={whole}");
        assert_eq!(told(&status.conditions), expected);
        let expected = format!(
            "Accepted=True/Accepted Conflicted=False/NoConflicts Programmed={part} \
             ResolvedRefs=True/ResolvedRefs"
        );
        assert_eq!(told(&status.listeners[0].conditions), expected);
        let all = status
            .conditions
            .iter()
            .chain(&status.listeners[0].conditions);
        assert!(all.clone().all(|it| it.observed_generation == Some(3)));
        assert!(all.clone().all(|it| !it.message.is_empty()));
        let has_addresses = matches!(progress, Progress::Running { .. });
        assert_eq!(status.addresses.is_empty(), !has_addresses);
    }
}

#[test]
fn what_is_not_accepted_is_not_programmed() {
    let status = of(
        &gateway(&["HTTP"]),
        &Progress::NotAccepted,
        "2026-01-01T00:00:00Z",
    );
    let expected = "Accepted=False/ListenersNotValid Programmed=False/Invalid";
    assert_eq!(told(&status.conditions), expected);
    let expected = "Accepted=False/UnsupportedProtocol Conflicted=False/NoConflicts \
                    Programmed=False/Invalid ResolvedRefs=True/ResolvedRefs";
    assert_eq!(told(&status.listeners[0].conditions), expected);
}

#[test]
fn addresses_are_those_of_the_service() {
    let status = of(&gateway(&["HBONE"]), &running(), "2026-01-01T00:00:00Z");
    let told: Vec<_> = status
        .addresses
        .iter()
        .map(|it| (&*it.kind, &*it.value))
        .collect();
    let expected = [
        ("IPAddress", "10.0.0.7"),
        ("IPAddress", "fd00::7"),
        ("Hostname", "w.shop.svc"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_change() {
    let (first, second, third) = (
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    );
    let mut gateway = gateway(&["HBONE"]);
    gateway.status = Some(of(&gateway, &Progress::Pending("x".into()), first));
    let later = of(
        &gateway,
        &Progress::Pending("another reason".into()),
        second,
    );
    let times = |status: &GatewayStatus| {
        let all = status
            .conditions
            .iter()
            .chain(&status.listeners[0].conditions);
        let times = all.map(|it| it.last_transition_time.clone());
        times.collect::<Vec<_>>()
    };
    assert_eq!(times(&later), vec![at(first); 6]);
    gateway.status = Some(later);
    let runs = of(&gateway, &running(), third);
    let mut expected = vec![at(first); 6];
    (expected[1], expected[4]) = (at(third), at(third));
    assert_eq!(times(&runs), expected);
    // The same again is the same.
    gateway.status = Some(runs.clone());
    assert_eq!(of(&gateway, &running(), "2026-01-04T00:00:00Z"), runs);
}
