//! Kubernetes Events: what `kubectl describe` shows below an object.

use std::{fmt::Write, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time;

use crate::telemetry::control::{ControlMetrics, Done};

/// Who publishes: `reportingController`.
const CONTROLLER: &str = "ambit.dev/control";
/// The longest `note` that an API server takes, in bytes.
const NOTE: usize = 1024;
/// How much of an object's name is in that of its Event, which may have 253 characters.
const NAME: usize = 230;
/// What objects of no namespace have their Events in.
const DEFAULT_NAMESPACE: &str = "default";
/// How long one may take to be published.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// `Warning`, or else `Normal`.
    pub warns: bool,
    /// In one word, `InvalidField`.
    pub reason: &'static str,
    /// What was being done, in one word.
    pub action: &'static str,
    /// In sentences; what is beyond 1 KiB is cut off.
    pub note: String,
}

/// Publishes Events. Cheap to clone.
///
/// The same notice on the same object has an Event of the same name, whoever publishes it: told again, it counts in
/// that one's series. kube's own Recorder takes all notices with one reason for the same, whatever they say.
#[derive(Clone)]
pub struct Events {
    client: Client,
    /// `reportingInstance`.
    instance: Arc<str>,
    metrics: Arc<ControlMetrics>,
}

/// Why an Event wasn't published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses it, or can't be reached.
    #[error("an Event for {about}: {source}")]
    Api {
        /// Kind and name.
        about: String,
        /// What it says.
        source: Box<kube::Error>,
    },
    /// The API server doesn't answer.
    #[error("an Event for {about}: the API server takes longer than {} s", PATIENCE.as_secs())]
    Timeout {
        /// Kind and name.
        about: String,
    },
}

impl Error {
    /// Whether the API server has answered: to ask the same again soon brings the same.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source, .. } => matches!(**source, kube::Error::Api(_)),
            Self::Timeout { .. } => false,
        }
    }
}

impl Events {
    /// In the name of one replica.
    #[must_use]
    pub fn new(client: Client, instance: Arc<str>, metrics: Arc<ControlMetrics>) -> Self {
        Self {
            client,
            instance,
            metrics,
        }
    }

    /// Publishes a notice, and counts whether that succeeded.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn publish(&self, about: &ObjectReference, notice: &Notice) -> Result<(), Error> {
        let told = time::timeout(PATIENCE, self.send(about, notice)).await;
        let about = || {
            let [kind, name] =
                [&about.kind, &about.name].map(|it| it.as_deref().unwrap_or_default());
            format!("{kind} {name}")
        };
        let result = match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(Error::Api {
                about: about(),
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Timeout { about: about() }),
        };
        self.metrics.event(Done::of(&result));
        result
    }

    async fn send(&self, about: &ObjectReference, notice: &Notice) -> Result<(), kube::Error> {
        let namespace = about.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let event = event(about, notice, &self.instance, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => return created.map(drop),
        }
        // A real server takes no change of an Event but of its series.
        let told = events.get_opt(&name).await?.and_then(|told| told.series);
        let series = EventSeries {
            count: told.map_or(2, |series| series.count.saturating_add(1)),
            last_observed_time: MicroTime(Timestamp::now()),
        };
        let patch = Patch::Merge(json!({ "series": series }));
        events.patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn event(about: &ObjectReference, notice: &Notice, instance: &str, now: Timestamp) -> Event {
    let note = cut(&notice.note, NOTE);
    Event {
        metadata: ObjectMeta {
            name: Some(name(about, notice)),
            namespace: Some(
                about
                    .namespace
                    .as_deref()
                    .unwrap_or(DEFAULT_NAMESPACE)
                    .to_owned(),
            ),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(instance, 128).to_owned()),
        action: Some(notice.action.to_owned()),
        reason: Some(notice.reason.to_owned()),
        type_: Some(if notice.warns { "Warning" } else { "Normal" }.to_owned()),
        note: Some(note.to_owned()),
        regarding: Some(about.clone()),
        ..Event::default()
    }
}

/// The object's name and a digest of the rest.
fn name(about: &ObjectReference, notice: &Notice) -> String {
    let mut digest = Sha256::new();
    for part in [
        about.kind.as_deref().unwrap_or_default(),
        about.uid.as_deref().unwrap_or_default(),
        notice.reason,
        notice.action,
        &notice.note,
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let object = cut(about.name.as_deref().unwrap_or_default(), NAME);
    let mut name = format!("{}.", object.trim_end_matches(['.', '-']));
    for byte in &digest.finalize()[..8] {
        // Writing to a String can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// As much as fits, whole characters only.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, uid: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        }
    }

    fn notice(note: &str) -> Notice {
        Notice {
            warns: true,
            reason: "Reason",
            action: "Act",
            note: note.into(),
        }
    }

    #[test]
    fn an_event_has_one_name_for_each_thing_that_is_told_of_each_life_of_an_object() {
        let of = |uid: &str, note: &str| name(&about("web", uid), &notice(note));
        assert_eq!(of("1", "x"), of("1", "x"));
        assert_ne!(of("1", "x"), of("2", "x"));
        assert_ne!(of("1", "x"), of("1", "y"));
        assert!(of("1", "x").starts_with("web."));
    }

    #[test]
    fn an_event_is_of_a_size_that_an_api_server_takes() {
        let long = "ä".repeat(1000);
        let name = format!("{}.{}", "a".repeat(228), "b".repeat(24));
        let event = event(
            &about(&name, "1"),
            &notice(&long),
            &long,
            Timestamp::UNIX_EPOCH,
        );
        assert!(
            event
                .metadata
                .name
                .is_some_and(|name| name.len() <= 253 && !name.contains(".."))
        );
        assert_eq!(event.note.map(|note| note.len()), Some(1024));
        assert_eq!(event.reporting_instance.map(|it| it.len()), Some(128));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    }
}
