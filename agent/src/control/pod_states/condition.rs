//! The condition of one pod: pure.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use crate::identity::pod_report::PodState;

/// The condition's type.
pub(super) const ENROLLED: &str = "ambit.dev/Enrolled";
/// A report is an agent's word: no more of it than a person would read is kept in the API server.
const MESSAGE: usize = 512;
/// The longest reason.
const REASON: usize = 64;

/// What a pod says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) enrolled: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Standing {
    pub(super) fn of(state: &PodState) -> Self {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let reason = state.reason.as_str();
        let fits = !reason.is_empty() && reason.len() <= REASON && reason.chars().all(is_word);
        Self {
            enrolled: state.enrolled,
            reason: if fits { reason } else { "Unknown" }.to_owned(),
            message: state.message[..state.message.floor_char_boundary(MESSAGE)].to_owned(),
        }
    }
}

/// What the pod says already.
pub(super) fn shown(pod: &Pod) -> Option<Standing> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == ENROLLED)?;
    Some(Standing {
        enrolled: condition.status == "True",
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    })
}

/// What the pod's condition has to be; `None` if it is that already, or the pod has ended.
pub(super) fn condition(pod: &Pod, standing: &Standing, now: Timestamp) -> Option<Value> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let before = shown(pod);
    if before.as_ref() == Some(standing) {
        return None;
    }
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    let since = conditions
        .find(|condition| condition.type_ == ENROLLED)
        .filter(|_| before.is_some_and(|before| before.enrolled == standing.enrolled))
        .and_then(|condition| condition.last_transition_time.clone())
        .map_or(now, |time| time.0);
    Some(json!({
        "type": ENROLLED,
        "status": if standing.enrolled { "True" } else { "False" },
        "reason": standing.reason,
        "message": standing.message,
        // Whole seconds: the API server keeps no more.
        "lastTransitionTime": Timestamp::from_second(since.as_second()).unwrap_or(since).to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, condition: Option<(&str, &str, &str)>) -> Pod {
        let mut conditions = vec![json!({ "type": "Ready", "status": "True" })];
        conditions.extend(condition.map(|(status, reason, message)| {
            json!({
                "type": ENROLLED, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "1970-01-01T00:00:01Z",
            })
        }));
        let pod = json!({
            "metadata": { "name": "web" },
            "status": { "phase": phase, "conditions": conditions },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_condition_is_written_when_the_pod_does_not_say_so_yet() {
        let enrolled = ("True", "Enrolled", "it is");
        let lost = ("False", "NoInterface", "it isn't");
        let other = ("False", "AddressTaken", "it isn't");
        // Before, now, and since when it says so.
        for (phase, before, now, since) in [
            ("Running", None, enrolled, Some(5)),
            ("Running", Some(enrolled), enrolled, None),
            ("Running", Some(enrolled), lost, Some(5)),
            ("Running", Some(lost), other, Some(1)),
            ("Running", Some(lost), enrolled, Some(5)),
            ("Succeeded", None, enrolled, None),
            ("Failed", Some(enrolled), lost, None),
        ] {
            let standing = Standing {
                enrolled: now.0 == "True",
                reason: now.1.into(),
                message: now.2.into(),
            };
            let at = Timestamp::from_millisecond(5_400).unwrap();
            let written = condition(&pod(phase, before), &standing, at);
            let expected = since.map(|since| {
                json!({
                    "type": ENROLLED, "status": now.0, "reason": now.1, "message": now.2,
                    "lastTransitionTime": format!("1970-01-01T00:00:0{since}Z"),
                })
            });
            assert_eq!(written, expected, "{phase} {before:?} {now:?}");
        }
    }

    #[test]
    fn no_more_of_a_report_is_kept_than_is_good_for_readers() {
        for (reason, expected) in [
            ("NoInterface", "NoInterface"),
            ("", "Unknown"),
            ("two words", "Unknown"),
            (&"x".repeat(65), "Unknown"),
        ] {
            let state = PodState {
                reason: reason.into(),
                message: "ä".repeat(400),
                ..PodState::default()
            };
            let standing = Standing::of(&state);
            assert_eq!(standing.reason, expected);
            assert_eq!(standing.message.len(), 512);
        }
    }
}
