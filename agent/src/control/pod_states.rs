//! What became of each pod that is asked into the mesh: a condition of the pod, and an Event when it changes.
//!
//! Agents tell; any replica writes, for a report is about the pods of one node, and that node's agent tells of them
//! one after the other. What is written is compared with the pod itself, so nothing has to be remembered here.

mod condition;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time;

use self::condition::{Standing, condition, shown};
use super::events::{Events, Notice};
use crate::{
    identity::{
        ca_service::{PodReports, ReportError},
        pod_report::{PodReport, PodState},
    },
    telemetry::control::{ControlMetrics, Done},
};

/// Who owns the condition, as server-side apply names it.
const MANAGER: &str = "ambit";
/// Pods of one report that are written at a time: the caller waits ten seconds for all.
const AT_A_TIME: usize = 8;
/// How long one pod may take to be read and written.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pods a page of a list.
const PAGE: u32 = 250;
/// Why a pod that has left isn't enrolled.
const NOT_ASKED: &str = "NotAsked";

/// Writes what agents report.
pub struct PodStates {
    client: Client,
    events: Events,
    metrics: Arc<ControlMetrics>,
}

impl PodStates {
    /// Counts what it writes.
    #[must_use]
    pub fn new(client: Client, events: Events, metrics: Arc<ControlMetrics>) -> Self {
        Self {
            client,
            events,
            metrics,
        }
    }

    async fn take_all(&self, node: &str, report: PodReport) -> Result<(), ReportError> {
        self.settle_all(node, report.pods).await?;
        if report.is_complete {
            let left = self.left(node, &report.asked).await?;
            self.settle_all(node, left).await?;
        }
        Ok(())
    }

    async fn settle_all(&self, node: &str, states: Vec<PodState>) -> Result<(), ReportError> {
        stream::iter(states)
            .map(|state| async move { self.settle(node, &state).await })
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await
    }

    /// Pods of the node that say something, though nobody asks them into the mesh any more.
    async fn left(&self, node: &str, asked: &[String]) -> Result<Vec<PodState>, ReportError> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut page = ListParams::default()
            .fields(&format!("spec.nodeName={node}"))
            .limit(PAGE);
        let mut left = Vec::new();
        loop {
            let list = pods.list(&page).await.map_err(unavailable)?;
            for pod in list.items {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let says = shown(&pod).is_some_and(|condition| condition.reason != NOT_ASKED);
                if says && !asked.contains(&uid) {
                    left.push(not_asked(uid, pod));
                }
            }
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => page = page.continue_token(&next),
                None => return Ok(left),
            }
        }
    }

    async fn settle(&self, node: &str, state: &PodState) -> Result<(), ReportError> {
        let written = time::timeout(PATIENCE, self.write(node, state)).await;
        written.unwrap_or_else(|_| {
            let late = "the API server takes too long".to_owned();
            Err(ReportError::Unavailable(late))
        })
    }

    async fn write(&self, node: &str, state: &PodState) -> Result<(), ReportError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &state.namespace);
        let found = pods.get_opt(&state.name).await.map_err(unavailable)?;
        // Of another life of the pod its own agent tells.
        let is_same = |pod: &Pod| pod.metadata.uid.as_deref() == Some(&*state.uid);
        let Some(pod) = found.filter(is_same) else {
            return Ok(());
        };
        let runs_on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if runs_on != Some(node) {
            return Err(ReportError::NotYours(format!(
                "pod {}/{} doesn't run on node {node}",
                state.namespace, state.name
            )));
        }
        let standing = Standing::of(state);
        let Some(condition) = condition(&pod, &standing, Timestamp::now()) else {
            return Ok(());
        };
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": state.name, "uid": state.uid },
            "status": { "conditions": [condition] },
        });
        let by = PatchParams::apply(MANAGER).force();
        let patched = pods
            .patch_status(&state.name, &by, &Patch::Apply(patch))
            .await;
        self.metrics.condition(Done::of(&patched));
        match patched {
            Ok(_) => {}
            // It has gone, or another has its name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                return Ok(());
            }
            Err(error) => return Err(unavailable(error)),
        }
        self.tell(&pod, &standing).await;
        Ok(())
    }

    async fn tell(&self, pod: &Pod, standing: &Standing) {
        let notice = Notice {
            warns: !standing.enrolled && standing.reason != NOT_ASKED,
            reason: if standing.enrolled {
                "Enrolled"
            } else {
                "NotEnrolled"
            },
            action: "Enrol",
            note: standing.message.clone(),
        };
        // The condition says the same for longer.
        if let Err(error) = self.events.publish(&pod.object_ref(&()), &notice).await {
            tracing::warn!("{error}");
        }
    }
}

impl PodReports for PodStates {
    fn take<'a>(
        &'a self,
        node: &'a str,
        report: PodReport,
    ) -> BoxFuture<'a, Result<(), ReportError>> {
        Box::pin(self.take_all(node, report))
    }
}

fn not_asked(uid: String, pod: Pod) -> PodState {
    PodState {
        uid,
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        enrolled: false,
        reason: NOT_ASKED.to_owned(),
        message: "Neither the pod's labels nor its namespace's ask it into the mesh.".to_owned(),
    }
}

fn unavailable(error: kube::Error) -> ReportError {
    ReportError::Unavailable(error.to_string())
}
