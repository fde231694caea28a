//! Whether a policy can be used, in its status.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    api::{DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time;

use super::problems::{CONFLICTED, Complaint, TARGET_NOT_FOUND};
use crate::{
    discovery::{
        facts::{Kind, ObjectKey},
        kubernetes::{objects_like, objects_of},
        model::ObjectName,
    },
    telemetry::control::{ControlMetrics, Done},
};

/// The condition's type: of a name that no other writer of these objects' status uses.
const ACCEPTED: &str = "ambit.dev/Accepted";
/// The kinds whose status has conditions that are ours to write.
const KINDS: [Kind; 4] = [
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::TrafficPolicy,
];
/// Objects a page of a list.
const PAGE: u32 = 250;
/// How long one object may take to be read and written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the conditions of policies. Those that were never wrong are left alone.
pub(super) struct Conditions {
    client: Client,
    metrics: Arc<ControlMetrics>,
    /// What each object that has one says, if it is `False`. `None` until that has been read.
    told: Option<HashMap<ObjectKey, Refusal>>,
}

/// Why a policy can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    reason: String,
    message: String,
}

impl From<&Complaint> for Refusal {
    fn from(complaint: &Complaint) -> Self {
        let reason = match complaint.notice.reason {
            reason @ (CONFLICTED | TARGET_NOT_FOUND) => reason,
            _ => "Invalid",
        };
        Self {
            reason: reason.to_owned(),
            message: complaint.notice.note.clone(),
        }
    }
}

impl Conditions {
    pub(super) fn new(client: Client, metrics: Arc<ControlMetrics>) -> Self {
        Self {
            client,
            metrics,
            told: None,
        }
    }

    /// Has each policy say what is wrong with it, and those that were put right that nothing is. What fails is tried
    /// again with the next call.
    pub(super) async fn settle(&mut self, complaints: &[Complaint]) {
        if self.told.is_none() {
            match time::timeout(PATIENCE, self.read()).await {
                Ok(Ok(told)) => self.told = Some(told),
                Ok(Err(error)) => return tracing::warn!("conditions of policies: {error}"),
                Err(_) => return,
            }
        }
        let mut wanted: HashMap<ObjectKey, Refusal> = HashMap::new();
        for complaint in complaints {
            if KINDS.contains(&complaint.about.kind) {
                // One condition an object: the first thing that is wrong with it.
                wanted
                    .entry(complaint.about.clone())
                    .or_insert_with(|| complaint.into());
            }
        }
        let told = self.told.get_or_insert_default();
        let changed = wanted
            .iter()
            .filter(|(object, refusal)| told.get(*object) != Some(*refusal))
            .map(|(object, refusal)| (object.clone(), Some(refusal.clone())));
        let right = told.keys().filter(|object| !wanted.contains_key(*object));
        let due: Vec<_> = changed
            .chain(right.map(|object| (object.clone(), None)))
            .collect();
        for (object, refusal) in due {
            let written = time::timeout(PATIENCE, self.write(&object, refusal.as_ref())).await;
            let told = self.told.get_or_insert_default();
            match (written, refusal) {
                (Ok(Ok(())), Some(refusal)) => {
                    told.insert(object, refusal);
                }
                (Ok(Ok(())), None) => {
                    told.remove(&object);
                }
                (Ok(Err(kube::Error::Api(status))), refusal) if !status.is_conflict() => {
                    // The same would bring the same: the Event has to do.
                    tracing::warn!("status of {object}: {status}");
                    told.remove(&object);
                    told.extend(refusal.map(|refusal| (object, refusal)));
                }
                (Ok(Err(error)), _) => {
                    tracing::warn!("status of {object}: {error}; it is tried again");
                }
                (Err(_), _) => return,
            }
        }
    }

    /// What an earlier leader wrote.
    async fn read(&self) -> Result<HashMap<ObjectKey, Refusal>, kube::Error> {
        let mut told = HashMap::new();
        for kind in KINDS {
            let objects = objects_of(self.client.clone(), kind);
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let list = match objects.list(&page).await {
                    // Its CRD isn't installed.
                    Err(kube::Error::Api(status)) if status.is_not_found() => break,
                    list => list?,
                };
                for object in &list.items {
                    if let Some(refusal) = refusal(&object.data["status"]) {
                        told.insert(key(kind, object), refusal);
                    }
                }
                match list.metadata.continue_.filter(|next| !next.is_empty()) {
                    Some(next) => page = page.continue_token(&next),
                    None => break,
                }
            }
        }
        Ok(told)
    }

    async fn write(&self, about: &ObjectKey, refusal: Option<&Refusal>) -> Result<(), kube::Error> {
        let objects = objects_like(self.client.clone(), about);
        let Some(mut object) = objects.get_opt(&about.name.name).await? else {
            return Ok(());
        };
        let generation = object.metadata.generation;
        let status = &object.data["status"];
        let Some(status) = with_condition(status, refusal, generation, Timestamp::now()) else {
            return Ok(());
        };
        object.data["status"] = status;
        let post = PostParams::default();
        let written = objects
            .replace_status(&about.name.name, &post, &object)
            .await;
        self.metrics.condition(Done::of(&written));
        written.map(drop)
    }
}

fn key(kind: Kind, object: &DynamicObject) -> ObjectKey {
    ObjectKey {
        kind,
        name: ObjectName {
            namespace: object.namespace().unwrap_or_default().into(),
            name: object.name_any().into(),
        },
    }
}

/// What our condition says, if it is `False`.
fn refusal(status: &Value) -> Option<Refusal> {
    let condition = ours(status)?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (condition["status"] == "False").then(|| Refusal {
        reason: text("reason"),
        message: text("message"),
    })
}

fn ours(status: &Value) -> Option<&Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == ACCEPTED)
}

/// The status with our condition: `False` and why, or `True` where it was `False`. `None` if it says so
/// already.
fn with_condition(
    status: &Value,
    refused: Option<&Refusal>,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Value> {
    let before = ours(status);
    let (says, reason, text) = match refused {
        Some(Refusal { reason, message }) => ("False", &**reason, &**message),
        None if refusal(status).is_some() => ("True", "Accepted", "It is in force."),
        None => return None,
    };
    let mut condition = json!({
        "type": ACCEPTED,
        "status": says,
        "reason": reason,
        "message": text,
        "lastTransitionTime": now.to_string(),
    });
    if let Some(generation) = generation {
        condition["observedGeneration"] = json!(generation);
    }
    if let Some(before) = before.filter(|before| before["status"] == says) {
        condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
        if condition == *before {
            return None;
        }
    }
    let mut status = if status.is_object() {
        status.clone()
    } else {
        json!({})
    };
    let others = status["conditions"].as_array().into_iter().flatten();
    let mut conditions: Vec<Value> = others
        .filter(|other| other["type"] != ACCEPTED)
        .cloned()
        .collect();
    conditions.push(condition);
    status["conditions"] = conditions.into();
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_for(message: &str) -> Refusal {
        Refusal {
            reason: "Invalid".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_condition_is_written_where_it_says_something_new_and_others_stay() {
        let time = |second: i64| Timestamp::from_second(second).unwrap();
        let other = json!({ "type": "Other", "status": "True" });
        let ours = |status: &str, reason: &str, message: &str, at: i64| {
            json!({
                "type": ACCEPTED, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": time(at).to_string(), "observedGeneration": 1,
            })
        };
        let invalid = |message: &str, at: i64| ours("False", "Invalid", message, at);
        let conflicted = ours("False", "Conflicted", "a", 1);
        let accepted = ours("True", "Accepted", "It is in force.", 5);
        let table = [
            ("nothing is wrong", vec![other.clone()], None, None),
            (
                "something is",
                vec![other.clone()],
                Some("a"),
                Some(vec![other.clone(), invalid("a", 5)]),
            ),
            (
                "the same still is",
                vec![invalid("a", 1), other.clone()],
                Some("a"),
                None,
            ),
            (
                "something else is",
                vec![invalid("a", 1)],
                Some("b"),
                Some(vec![invalid("b", 1)]),
            ),
            (
                "it was put right",
                vec![invalid("a", 1), other.clone()],
                None,
                Some(vec![other, accepted.clone()]),
            ),
            (
                "the same is, of another kind",
                vec![conflicted],
                Some("a"),
                Some(vec![invalid("a", 1)]),
            ),
            ("it was right", vec![accepted.clone()], None, None),
            (
                "it is wrong again",
                vec![accepted],
                Some("a"),
                Some(vec![invalid("a", 5)]),
            ),
        ];
        for (what, before, message, expected) in table {
            let before = json!({ "observed": 7, "conditions": before });
            let expected = expected.map(|list| json!({ "observed": 7, "conditions": list }));
            let refusal = message.map(invalid_for);
            assert_eq!(
                with_condition(&before, refusal.as_ref(), Some(1), time(5)),
                expected,
                "{what}"
            );
        }
        let first = with_condition(&Value::Null, Some(&invalid_for("a")), Some(1), time(5));
        assert_eq!(first, Some(json!({ "conditions": [invalid("a", 5)] })));
    }
}
