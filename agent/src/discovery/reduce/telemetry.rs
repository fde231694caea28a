//! Names for metrics and logs, found as Istio finds them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::intern::Interner;
use crate::discovery::model::TelemetryNames;

const UNKNOWN: &str = "unknown";

/// Names a pod by its owner and labels.
pub(super) fn names(
    interner: &mut Interner,
    pod: &str,
    labels: &BTreeMap<String, String>,
    owners: &[OwnerReference],
) -> Arc<TelemetryNames> {
    let (workload, workload_type) = owner(pod, labels, owners);
    let first = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| labels.get(*key))
            .map(String::as_str)
    };
    let canonical_service = first(&[
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ])
    .unwrap_or(workload);
    let canonical_revision = first(&[
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ])
    .unwrap_or("latest");
    let names = TelemetryNames {
        workload: interner.text(workload),
        workload_type: interner.text(workload_type),
        canonical_service: interner.text(canonical_service),
        canonical_revision: interner.text(canonical_revision),
        app: interner.text(first(&["app"]).unwrap_or(UNKNOWN)),
        version: interner.text(first(&["version"]).unwrap_or(UNKNOWN)),
    };
    interner.telemetry(names)
}

/// Name and type of what made the pod: a ReplicaSet's Deployment, a Job's CronJob.
///
/// The API shows one step of ownership; the second is read from the name, which the controllers
/// build as `<deployment>-<pod-template-hash>` and `<cronjob>-<scheduled minute>`.
fn owner<'a>(
    pod: &'a str,
    labels: &BTreeMap<String, String>,
    owners: &'a [OwnerReference],
) -> (&'a str, &'static str) {
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    let Some(owner) = controller.or(owners.first()) else {
        return (pod, "pod");
    };
    let name = owner.name.as_str();
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = labels.get("pod-template-hash");
            let deployment =
                hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            deployment.map_or((name, "replicaset"), |deployment| {
                (deployment, "deployment")
            })
        }
        "StatefulSet" => (name, "statefulset"),
        "DaemonSet" => (name, "daemonset"),
        "Job" => match name.rsplit_once('-') {
            Some((cron_job, minute)) if is_schedule(minute) => (cron_job, "cronjob"),
            _ => (name, "job"),
        },
        _ => (pod, "pod"),
    }
}

/// Minutes since 1970 (eight digits from 1989 to 2160); older clusters wrote seconds (ten).
fn is_schedule(suffix: &str) -> bool {
    (8..=10).contains(&suffix.len()) && suffix.bytes().all(|c| c.is_ascii_digit())
}
