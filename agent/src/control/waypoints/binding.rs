//! Who has the rights of waypoints: the service accounts that control made for Gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRoleBinding, Subject},
};
use kube::{
    Api, Resource,
    api::{ListParams, PostParams},
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, MANAGER,
    follow::{drive, retry},
    kinds::{CLASS, Gateway, gateways, is_waypoint, place},
};
use crate::discovery::model::GATEWAY_CLASS_NAME;

/// The binding that an installation has; control changes its subjects alone.
const BINDING: &str = "ambit-waypoints";

/// Keeps the subjects of the binding until told to stop.
pub(super) async fn run(context: &Arc<Context>, stop: &CancellationToken) {
    let client = || context.client.clone();
    let ours = format!("{GATEWAY_CLASS_NAME}={CLASS}");
    let config = watcher::Config::default;
    let all = Api::<Gateway>::all_with(client(), &gateways());
    let one = config().fields(&format!("metadata.name={BINDING}"));
    let controller = Controller::new(Api::<ClusterRoleBinding>::all(client()), one)
        .watches_with(all, gateways(), config(), |_| [ObjectRef::new(BINDING)])
        .watches(
            Api::<ServiceAccount>::all(client()),
            config().labels(&ours),
            |_| [ObjectRef::new(BINDING)],
        )
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, context.clone());
    drive("ClusterRoleBinding ambit-waypoints", controller).await;
}

async fn reconcile(
    binding: Arc<ClusterRoleBinding>,
    context: Arc<Context>,
) -> Result<Action, kube::Error> {
    let client = || context.client.clone();
    // Asked for anew: what is known from watches may be older than the event that leads here.
    let gateways = Api::<Gateway>::all_with(client(), &gateways());
    let gateways = gateways.list(&ListParams::default()).await?.items;
    let ours = ListParams::default().labels(&format!("{GATEWAY_CLASS_NAME}={CLASS}"));
    let accounts = Api::<ServiceAccount>::all(client())
        .list(&ours)
        .await?
        .items;
    let subjects = subjects(&gateways, &accounts);
    let has: BTreeSet<_> = binding.subjects.iter().flatten().map(key).collect();
    if has == subjects.iter().map(key).collect() {
        return Ok(Action::await_change());
    }
    // Of the version that is known: whoever else changes it isn't overwritten.
    let mut changed = (*binding).clone();
    changed.subjects = Some(subjects);
    let by = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    let bindings = Api::<ClusterRoleBinding>::all(client());
    bindings.replace(BINDING, &by, &changed).await?;
    Ok(Action::await_change())
}

/// The accounts that belong to Gateways of our class. One that somebody else made has no rights by its name.
fn subjects(gateways: &[Gateway], accounts: &[ServiceAccount]) -> Vec<Subject> {
    let waypoints = gateways.iter().filter(|gateway| is_waypoint(gateway));
    let waypoints: BTreeMap<_, _> = waypoints
        .map(|gateway| (place(&gateway.metadata), gateway.metadata.uid.as_deref()))
        .collect();
    let belongs = |account: &&ServiceAccount| {
        let uid = waypoints.get(&place(&account.metadata)).copied().flatten();
        let mut owners = account.meta().owner_references.iter().flatten();
        uid.is_some()
            && owners.any(|owner| owner.controller == Some(true) && Some(&*owner.uid) == uid)
    };
    let mut subjects: Vec<_> = accounts
        .iter()
        .filter(belongs)
        .map(|account| Subject {
            kind: "ServiceAccount".into(),
            name: account.metadata.name.clone().unwrap_or_default(),
            namespace: account.metadata.namespace.clone(),
            api_group: None,
        })
        .collect();
    subjects.sort_by(|one, other| key(one).cmp(&key(other)));
    subjects
}

fn key(subject: &Subject) -> (&str, Option<&str>, &str) {
    (&subject.kind, subject.namespace.as_deref(), &subject.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(name: &str, uid: &str, class: &str) -> Gateway {
        serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": name, "uid": uid },
            "spec": { "gatewayClassName": class },
        }))
        .unwrap()
    }

    fn account(name: &str, owner: &str, controls: bool) -> ServiceAccount {
        serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": name, "ownerReferences": [{
                "apiVersion": "v1", "kind": "Gateway", "name": name, "uid": owner,
                "controller": controls,
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn only_accounts_that_a_waypoints_gateway_owns_have_its_rights() {
        let gateways = [
            gateway("b", "1", CLASS),
            gateway("a", "2", CLASS),
            gateway("edge", "3", "other"),
        ];
        let accounts = [
            account("b", "1", true),
            account("a", "2", true),
            // Of another class; of a Gateway of before; of no Gateway; under another name.
            account("edge", "3", true),
            account("a", "7", true),
            account("a", "2", false),
            account("c", "1", true),
        ];
        let told = subjects(&gateways, &accounts);
        let names: Vec<_> = told.iter().map(|subject| &*subject.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            told.iter()
                .all(|subject| subject.namespace.as_deref() == Some("shop"))
        );
        assert_eq!(subjects(&gateways, &[]), []);
    }
}
