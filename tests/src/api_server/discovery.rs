//! What the server tells of itself.

use serde_json::{Value, json};

use super::{
    refusal::Refusal,
    resources::{RESOURCES, Resource},
    state::State,
};

/// The answer to `/version`, `/api`, `/apis` and what is below them.
pub(super) fn tell(state: &State, path: &str) -> Result<Value, Refusal> {
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match segments.as_slice() {
        ["version"] => Ok(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2026-04-22T00:00:00Z", "goVersion": "go1.26",
            "compiler": "gc", "platform": "linux/amd64",
        })),
        ["api"] => Ok(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let mut groups: Vec<Value> = Vec::new();
            for (_, resource) in installed(state).filter(|(_, it)| !it.group.is_empty()) {
                let group = group(resource);
                if groups.last() != Some(&group) {
                    groups.push(group);
                }
            }
            groups.dedup();
            Ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["api", "v1"] => resources(state, "", "v1"),
        ["apis", name] => {
            let found = installed(state).find(|(_, it)| it.group == *name);
            let (_, resource) = found.ok_or(Refusal::PageNotFound)?;
            let mut group = group(resource);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            Ok(group)
        }
        ["apis", group, version] => resources(state, group, version),
        // healthz, livez, readyz
        _ => Ok(json!("ok")),
    }
}

fn installed(state: &State) -> impl Iterator<Item = (usize, &'static Resource)> {
    let all = RESOURCES.iter().enumerate();
    all.filter(|(index, _)| !state.is_hidden(*index))
}

fn group(of: &Resource) -> Value {
    let version = json!({ "groupVersion": of.api_version(), "version": of.version });
    json!({ "name": of.group, "versions": [version], "preferredVersion": version })
}

fn resources(state: &State, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut resources = Vec::new();
    let mut group_version = String::new();
    let own = installed(state).filter(|(_, it)| (it.group, it.version) == (group, version));
    for (_, resource) in own {
        group_version = resource.api_version();
        let verbs: &[&str] = if resource.kind == "TokenReview" {
            &["create"]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        };
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.kind.to_lowercase(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": verbs,
            "shortNames": short_names(resource),
        });
        resources.push(entry.clone());
        if resource.status {
            entry["name"] = json!(format!("{}/status", resource.plural));
            entry["singularName"] = json!("");
            entry["shortNames"] = json!([]);
            entry["verbs"] = json!(["get", "patch", "update"]);
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return Err(Refusal::PageNotFound);
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version, "resources": resources,
    }))
}

/// What people call a kind at the command line.
fn short_names(of: &Resource) -> &'static [&'static str] {
    match of.kind {
        "Namespace" => &["ns"],
        "Node" => &["no"],
        "Pod" => &["po"],
        "Service" => &["svc"],
        "ConfigMap" => &["cm"],
        "ServiceAccount" => &["sa"],
        "Event" => &["ev"],
        "Deployment" => &["deploy"],
        "PodDisruptionBudget" => &["pdb"],
        "Gateway" => &["gtw"],
        "GatewayClass" => &["gc"],
        _ => &[],
    }
}
