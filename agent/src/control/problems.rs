//! What is wrong with objects, told where their owners look: as Events on them, and in their status.

mod ledger;
mod unserved;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, ResourceExt, api::DynamicObject};
use tokio::time::{self, Instant};

pub(super) use self::ledger::Complaint;
use self::{ledger::Ledger, unserved::Unserved};
use super::{
    conditions::Conditions,
    events::{Events, Notice},
};
use crate::{
    discovery::{
        facts::{Kind, ObjectKey},
        kubernetes::objects_like,
        manifest,
        problems::{Problem, ProblemKind, Problems},
        reduce::Fault,
        store::Store,
    },
    telemetry::control::ControlMetrics,
};

/// How often to look for services without endpoints, and to try again what failed.
const LOOK: Duration = Duration::from_secs(10);
/// Between two Events, so that many that come at once don't flood the API server.
const PACE: Duration = Duration::from_millis(50);
/// How long an object may take to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reasons that Events and conditions have in common, those of GEP-713.
pub(super) const CONFLICTED: &str = "Conflicted";
pub(super) const TARGET_NOT_FOUND: &str = "TargetNotFound";

/// Publishes what is wrong with objects, for as long as it is polled. Meant for the leader alone.
pub struct ProblemPublisher {
    client: Client,
    store: Arc<Store>,
    problems: Problems,
    events: Events,
    metrics: Arc<ControlMetrics>,
}

impl ProblemPublisher {
    /// Of what a source finds wrong, and of services in the store.
    #[must_use]
    pub fn new(
        client: Client,
        store: Arc<Store>,
        problems: Problems,
        events: Events,
        metrics: Arc<ControlMetrics>,
    ) -> Self {
        Self {
            client,
            store,
            problems,
            events,
            metrics,
        }
    }

    /// Runs until it is dropped. Each problem is told once, and again after a time while it lasts.
    pub async fn run(&self) {
        let mut changes = self.problems.subscribe();
        let mut ledger = Ledger::default();
        let mut unserved = Unserved::default();
        let mut conditions = Conditions::new(self.client.clone(), self.metrics.clone());
        loop {
            let problems = changes.borrow_and_update().clone();
            let services = unserved.look(&self.store, Instant::now());
            let complaints: Vec<_> = problems.iter().filter_map(of_problem).collect();
            conditions.settle(&complaints).await;
            let all = complaints.into_iter().chain(services);
            self.tell(&mut ledger, all.collect()).await;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = time::sleep(LOOK) => {}
            }
        }
    }

    async fn tell(&self, ledger: &mut Ledger, complaints: Vec<Complaint>) {
        for complaint in ledger.due(complaints, Instant::now()) {
            let about = &complaint.about;
            let found = objects_like(self.client.clone(), about);
            let found = time::timeout(PATIENCE, found.get_opt(&about.name.name)).await;
            let object = match found {
                Ok(Ok(Some(object))) => object,
                // The watch will tell that it's gone.
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => {
                    tracing::warn!("{about}: {error}; what is wrong with it is told later");
                    return;
                }
                Err(_) => return,
            };
            match self
                .events
                .publish(&reference(&object), &complaint.notice)
                .await
            {
                Ok(()) => ledger.told(complaint, Instant::now()),
                Err(error) => {
                    tracing::warn!("{error}");
                    if !error.is_refusal() {
                        return;
                    }
                    ledger.told(complaint, Instant::now());
                }
            }
            time::sleep(PACE).await;
        }
    }
}

/// Names this life of an object.
fn reference(object: &DynamicObject) -> ObjectReference {
    let types = object.types.as_ref();
    ObjectReference {
        api_version: types.map(|types| types.api_version.clone()),
        kind: types.map(|types| types.kind.clone()),
        namespace: object.namespace(),
        name: Some(object.name_any()),
        uid: object.uid(),
        resource_version: object.resource_version(),
        ..ObjectReference::default()
    }
}

/// What its object is to be told; `None` if it is about none.
fn of_problem(problem: &Problem) -> Option<Complaint> {
    let reason = match &problem.kind {
        ProblemKind::Unreadable { .. } | ProblemKind::NotFollowed { .. } => return None,
        ProblemKind::Manifest(manifest::Error::Version { .. }) => "UnknownVersion",
        ProblemKind::Manifest(manifest::Error::Field { object, error })
            if matches!(object.kind, Kind::HTTPRoute | Kind::GRPCRoute)
                && error.field.starts_with("spec.parentRefs") =>
        {
            "NotApplied"
        }
        ProblemKind::Manifest(manifest::Error::Field { error, .. }) => match error.fault {
            Fault::Invalid => "InvalidField",
            Fault::Conflicted => CONFLICTED,
            Fault::TargetNotFound => TARGET_NOT_FOUND,
        },
        ProblemKind::Manifest(_) => "InvalidField",
        ProblemKind::Duplicate { .. } => "Duplicate",
    };
    let about = problem.kind.key()?;
    Some(complaint(about, reason, problem.kind.to_string()))
}

fn complaint(about: ObjectKey, reason: &'static str, note: String) -> Complaint {
    let notice = Notice {
        warns: true,
        reason,
        action: "Read",
        note,
    };
    Complaint { about, notice }
}
