//! GatewayClasses that name this controller: which of them it runs.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{Controller, controller::Action, watcher},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Context, MANAGER,
    accept::Verdict,
    follow::{drive, retry},
    kinds::{API_VERSION, CLASS, CONTROLLER, GatewayClass, gateway_classes},
    status::condition,
};

/// Keeps the status of GatewayClasses until told to stop.
pub(super) async fn run(context: &Arc<Context>, stop: &CancellationToken) {
    let kind = gateway_classes();
    let classes = Api::<GatewayClass>::all_with(context.client.clone(), &kind);
    let controller = Controller::new_with(classes, watcher::Config::default(), kind)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, retry, context.clone());
    drive("GatewayClasses", controller).await;
}

async fn reconcile(class: Arc<GatewayClass>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let before = class.status.clone().unwrap_or_default().conditions;
    let Some(verdict) = verdict(&class) else {
        return Ok(Action::await_change());
    };
    let now = Time(Timestamp::now());
    let accepted = condition(
        &before,
        "Accepted",
        &verdict,
        class.metadata.generation,
        &now,
    );
    if before.contains(&accepted) {
        return Ok(Action::await_change());
    }
    let told = json!({
        "apiVersion": API_VERSION,
        "kind": "GatewayClass",
        "status": { "conditions": [accepted] },
    });
    let classes = Api::<GatewayClass>::all_with(context.client.clone(), &gateway_classes());
    let by = PatchParams::apply(MANAGER).force();
    classes
        .patch_status(name, &by, &Patch::Apply(&told))
        .await?;
    Ok(Action::await_change())
}

/// Whether control runs the Gateways of a class; None if the class isn't of this controller.
fn verdict(class: &GatewayClass) -> Option<Verdict> {
    if class.spec.controller_name != CONTROLLER {
        return None;
    }
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if name != CLASS {
        let message = format!(
            "metadata.name: control runs Gateways of class {CLASS} alone; rename the class"
        );
        return Some(Verdict::no("Unsupported", message));
    }
    if class.spec.parameters_ref.is_some() {
        let message = "spec.parametersRef: waypoints have no parameters; take it away";
        return Some(Verdict::no("InvalidParameters", message));
    }
    Some(Verdict::yes(
        "Accepted",
        "control makes waypoints of its Gateways",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_runs_one_class_and_speaks_of_none_that_is_anothers() {
        let table = [
            (CLASS, CONTROLLER, false, "Accepted"),
            (CLASS, CONTROLLER, true, "InvalidParameters"),
            ("other", CONTROLLER, false, "Unsupported"),
            (CLASS, "istio.io/mesh-controller", false, ""),
        ];
        for (name, controller, has_parameters, reason) in table {
            let mut class: GatewayClass = serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "controllerName": controller },
            }))
            .unwrap();
            class.spec.parameters_ref = has_parameters.then(|| json!({ "name": "x" }));
            let verdict = verdict(&class);
            let told = verdict.as_ref().map_or("", |verdict| verdict.reason);
            assert_eq!(told, reason, "{name} {controller}");
            let holds = verdict.is_some_and(|verdict| verdict.holds);
            assert_eq!(holds, reason == "Accepted", "{name} {controller}");
        }
    }
}
