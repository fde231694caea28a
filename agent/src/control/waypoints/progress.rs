//! How far the objects of a Gateway are, from what the API server says of them. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DynamicObject;
use serde_json::Value;

use super::{
    kinds::{Gateway, place},
    status::Progress,
};

/// Whose an object is that has the name of one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The Gateway's.
    Ours,
    /// That of a Gateway of the same name that is gone: it goes too.
    OfEarlier,
    /// Somebody else's.
    Foreign,
}

/// Whose an object is.
pub(super) fn whose(gateway: &Gateway, object: &DynamicObject) -> Whose {
    let mut owners = object.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return Whose::Foreign;
    };
    let is_gateway = |owner: &OwnerReference| {
        owner.kind == "Gateway" && Some(&owner.name) == gateway.metadata.name.as_ref()
    };
    match owner {
        owner if Some(&owner.uid) == gateway.metadata.uid.as_ref() => Whose::Ours,
        owner if is_gateway(owner) => Whose::OfEarlier,
        _ => Whose::Foreign,
    }
}

/// What is said of an object that is in the way.
pub(super) fn taken(gateway: &Gateway, kind: &str, name: &str, whose: Whose) -> Progress {
    let (namespace, _) = place(&gateway.metadata);
    match whose {
        Whose::OfEarlier => Progress::Pending(format!(
            "{kind} {namespace}/{name} is of an earlier Gateway, and is being removed"
        )),
        _ => Progress::Taken(format!(
            "{kind} {namespace}/{name} isn't this Gateway's, and is left as it is: remove or rename it, \
             or give the Gateway another name"
        )),
    }
}

/// How far a waypoint is whose objects are all there.
pub(super) fn of_objects(
    gateway: &Gateway,
    service: &DynamicObject,
    deployment: &DynamicObject,
) -> Progress {
    let status = &deployment.data["status"];
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let ready = number(&status["readyReplicas"]);
    let wanted = number(&deployment.data["spec"]["replicas"]);
    if ready == 0 {
        let failure = condition(status, "ReplicaFailure", "True");
        if let Some(why) = failure {
            return Progress::NoRoom(format!("its pods can't be made: {why}"));
        }
        let stuck = condition(status, "Progressing", "False");
        let why = stuck.map_or_else(String::new, |why| format!(": {why}"));
        return Progress::Pending(format!("none of {wanted} pods is ready{why}"));
    }
    let (namespace, name) = place(&gateway.metadata);
    let spec = &service.data["spec"];
    let all = spec["clusterIPs"].as_array().into_iter().flatten();
    let addresses: Vec<_> = all.filter_map(address).collect();
    if addresses.is_empty() {
        return Progress::NoAddress;
    }
    Progress::Running {
        addresses,
        hostname: format!("{name}.{namespace}.svc"),
    }
}

/// What a status says of an error of the API server, if it tells of the Gateway: one that is away, or knows a later version
/// of an object, says nothing of it.
pub(super) fn refused(error: &kube::Error) -> Option<Progress> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    let is_lasting = (400..500).contains(&status.code) && !matches!(status.code, 401 | 409 | 429);
    let refused = || format!("the API server refuses: {}", status.message);
    is_lasting.then(|| match status.message.contains("exceeded quota") {
        true => Progress::NoRoom(refused()),
        false => Progress::Pending(refused()),
    })
}

fn address(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let ip: std::net::IpAddr = text.parse().ok()?;
    Some(ip.to_string())
}

fn condition<'a>(status: &'a Value, kind: &str, holds: &str) -> Option<&'a str> {
    let mut all = status["conditions"].as_array()?.iter();
    let found = all.find(|it| it["type"] == kind && it["status"] == holds)?;
    found["message"].as_str()
}

#[cfg(test)]
mod tests;
