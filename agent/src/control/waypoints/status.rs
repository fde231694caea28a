//! What a Gateway's status says. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    accept::{Judgement, ListenerJudgement, Verdict},
    kinds::{Address, Gateway, GatewayStatus, ListenerStatus},
};

/// How far the objects of an accepted Gateway are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its spec keeps it from being anything.
    NotAccepted,
    /// An object of that name is somebody else's: what it is and whose.
    Taken(String),
    /// What it waits for.
    Pending(String),
    /// The cluster has no room, as it says.
    NoRoom(String),
    /// The waypoint's Service has no address yet.
    NoAddress,
    /// It serves.
    Running {
        /// Of its Service.
        addresses: Vec<String>,
        /// That its Service is resolved by.
        hostname: String,
    },
}

/// The status that a Gateway is to have. What is as it was keeps its time.
pub(super) fn status(
    gateway: &Gateway,
    judgement: &Judgement,
    progress: &Progress,
    now: &Time,
) -> GatewayStatus {
    let before = gateway.status.clone().unwrap_or_default();
    let generation = gateway.metadata.generation;
    let programmed = programmed(judgement, progress);
    let listener = |judged: &ListenerJudgement| {
        let mut known = before.listeners.iter();
        let known = known.find(|known| known.name == judged.name);
        let known = known.map_or(&[][..], |known| &known.conditions);
        let of = |kind, verdict: &Verdict| condition(known, kind, verdict, generation, now);
        ListenerStatus {
            name: judged.name.clone(),
            attached_routes: 0,
            supported_kinds: Vec::new(),
            conditions: vec![
                of("Accepted", &judged.accepted),
                of("Conflicted", &judged.conflicted),
                of("Programmed", &listener_programmed(judged, &programmed)),
                of("ResolvedRefs", &judged.resolved),
            ],
        }
    };
    let of =
        |kind, verdict: &Verdict| condition(&before.conditions, kind, verdict, generation, now);
    GatewayStatus {
        addresses: addresses(progress),
        conditions: vec![
            of("Accepted", &judgement.accepted),
            of("Programmed", &programmed),
        ],
        listeners: judgement.listeners.iter().map(listener).collect(),
    }
}

/// A condition, with the time of its last change.
pub(super) fn condition(
    before: &[Condition],
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let status = if verdict.holds { "True" } else { "False" };
    let same = before
        .iter()
        .find(|before| before.type_ == kind && before.status == status);
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: verdict.reason.into(),
        message: verdict.message.clone(),
        observed_generation: generation,
        last_transition_time: same.map_or(now, |same| &same.last_transition_time).clone(),
    }
}

fn programmed(judgement: &Judgement, progress: &Progress) -> Verdict {
    match progress {
        Progress::NotAccepted => {
            let message = format!("not accepted: {}", judgement.accepted.message);
            Verdict::no("Invalid", message)
        }
        Progress::Taken(by) => Verdict::no("Invalid", by),
        Progress::Pending(what) => Verdict::no("Pending", what),
        Progress::NoRoom(why) => Verdict::no("NoResources", why),
        Progress::NoAddress => Verdict::no("AddressNotAssigned", "its Service has no address yet"),
        Progress::Running { .. } => Verdict::yes("Programmed", "the waypoint serves"),
    }
}

fn listener_programmed(judged: &ListenerJudgement, gateway: &Verdict) -> Verdict {
    if !judged.accepted.holds {
        let message = format!("not accepted: {}", judged.accepted.message);
        return Verdict::no("Invalid", message);
    }
    match (gateway.holds, gateway.reason) {
        (true, _) => gateway.clone(),
        (false, "Invalid") => Verdict::no("Invalid", gateway.message.clone()),
        // A listener knows no finer reasons.
        (false, _) => Verdict::no("Pending", gateway.message.clone()),
    }
}

fn addresses(progress: &Progress) -> Vec<Address> {
    let Progress::Running {
        addresses,
        hostname,
    } = progress
    else {
        return Vec::new();
    };
    let address = |kind: &str, value: &String| Address {
        kind: kind.into(),
        value: value.clone(),
    };
    let mut all: Vec<_> = addresses
        .iter()
        .map(|value| address("IPAddress", value))
        .collect();
    all.push(address("Hostname", hostname));
    all
}

#[cfg(test)]
mod tests;
