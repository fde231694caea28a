//! What a route's status says. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{accept::Verdict, kinds::CONTROLLER, status::condition};
use crate::discovery::{
    facts::Object,
    manifest,
    model::{BackendTarget, InvalidBackend, Route, RouteKind, RouteParent},
    reduce::Reducer,
    store::Snapshot,
};

/// `status.parents` as it is to be: ours for each Service that is a parent, and those of other controllers.
/// What is as it was keeps its time.
pub(super) fn parents(object: &DynamicObject, snapshot: &Snapshot, now: &Time) -> Vec<Value> {
    let before = object.data["status"]["parents"].as_array();
    let before = before.map_or(&[][..], Vec::as_slice);
    let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER;
    let mut all: Vec<Value> = before.iter().filter(|it| !is_ours(it)).cloned().collect();
    let read = read(object);
    let refs = object.data["spec"]["parentRefs"].as_array();
    for (index, reference) in refs.into_iter().flatten().enumerate() {
        if reference["kind"] != "Service" || reference["group"] != "" {
            continue;
        }
        let mut known = before.iter().filter(is_ours);
        let known = known.find(|entry| entry["parentRef"] == *reference);
        let known = known.map_or(&Value::Null, |entry| &entry["conditions"]);
        let known = Vec::<Condition>::deserialize(known).unwrap_or_default();
        let conditions = conditions(&read, index, snapshot).map(|(kind, verdict)| {
            condition(&known, kind, &verdict, object.metadata.generation, now)
        });
        all.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions.collect::<Vec<_>>(),
        }));
    }
    all
}

/// The route, or what is wrong with it.
fn read(object: &DynamicObject) -> Result<Box<Route>, String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(object) else {
        return Err("it can't be read".into());
    };
    let mut manifest = manifest::read(fields, &mut Reducer::new("cluster.local"));
    match manifest.objects.pop().map(|parsed| parsed.object) {
        Some(Object::Route(route)) => Ok(route),
        _ => {
            let errors = manifest.errors.iter().map(ToString::to_string);
            Err(errors.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Of the parent at that place.
fn conditions(
    read: &Result<Box<Route>, String>,
    index: usize,
    snapshot: &Snapshot,
) -> impl Iterator<Item = (&'static str, Verdict)> {
    let all = match read {
        Err(reason) => {
            let refused = Verdict::no("UnsupportedValue", reason);
            [Some(("Accepted", refused)), None, None]
        }
        Ok(route) => {
            let refused = refused_rules(route);
            let accepted = match route.parents.iter().find(|it| it.index == index) {
                Some(parent) => accepted(route, parent, &refused, snapshot),
                None => Verdict::no("NoMatchingParent", "the parent can't be read"),
            };
            let partial = accepted.holds && !refused.is_empty();
            let partial = partial.then(|| {
                let message = format!("Dropped Rule: {}", refused.join("; "));
                (
                    "PartiallyInvalid",
                    Verdict::yes("UnsupportedValue", message),
                )
            });
            let resolved = ("ResolvedRefs", resolved(route, snapshot));
            [Some(("Accepted", accepted)), Some(resolved), partial]
        }
    };
    all.into_iter().flatten()
}

fn accepted(
    route: &Route,
    parent: &RouteParent,
    refused: &[String],
    snapshot: &Snapshot,
) -> Verdict {
    let ports = match snapshot.applies(parent) {
        Err(error) => return Verdict::no("NoMatchingParent", error.to_string()),
        Ok(ports) => ports,
    };
    if !route.rules.is_empty() && refused.len() == route.rules.len() {
        return Verdict::no("UnsupportedValue", refused.join("; "));
    }
    let table = snapshot.routes_of(&parent.service);
    let of = &route.name.namespace;
    let holds = |port: &u16| {
        let kind = table.and_then(|table| table.kind(*port, of));
        kind.is_none_or(|kind| kind == route.kind)
    };
    if route.kind == RouteKind::Http && !ports.iter().any(holds) {
        let message = "a GRPCRoute is attached there, and where both kinds are it holds alone: name \
                       another port, or remove one of them";
        return Verdict::no("Conflicted", message);
    }
    Verdict::yes("Accepted", "waypoints apply it")
}

/// What is wrong with rules whose requests are refused, all or a share of them.
fn refused_rules(route: &Route) -> Vec<String> {
    let rules = route.rules.iter().map(|entry| &entry.rule);
    let refused = rules.filter_map(|rule| {
        let mut backends = rule.backends.iter();
        let filter = backends.find_map(|backend| match &backend.target {
            BackendTarget::Invalid(invalid @ InvalidBackend::Filter { .. }) => Some(invalid),
            _ => None,
        })?;
        Some(format!("spec.rules[{}]: {filter}", rule.index))
    });
    refused.collect()
}

fn resolved(route: &Route, snapshot: &Snapshot) -> Verdict {
    let mut unresolved = snapshot.unresolved(route);
    unresolved.retain(|(_, invalid)| !matches!(invalid, InvalidBackend::Filter { .. }));
    let reason = match unresolved.first() {
        None => return Verdict::yes("ResolvedRefs", "all that it refers to is there"),
        Some((_, InvalidBackend::Kind { .. })) => "InvalidKind",
        Some((_, InvalidBackend::NotPermitted { .. })) => "RefNotPermitted",
        Some(_) => "BackendNotFound",
    };
    let all = unresolved.iter();
    let all = all.map(|(field, invalid)| format!("{field}: {invalid}"));
    Verdict::no(reason, all.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
