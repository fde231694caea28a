//! What control has been told, and what it has yet to be: pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::standing::{Standing, Standings};
use crate::{
    discovery::model::WorkloadUid,
    identity::pod_report::{MAX_PODS, PodReport, PodState},
};

/// How long a pod may be without an interface before that is told: a CNI may be slow.
const GRACE: Duration = Duration::from_secs(5);
/// Uids that fit into a report; no node has as many pods.
const MAX_ASKED: usize = 1024;

/// What was told, and taken.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    told: BTreeMap<WorkloadUid, PodState>,
    waiting: BTreeMap<WorkloadUid, Instant>,
    /// Control knows which pods are asked: what changes since, it is told of.
    is_complete: bool,
}

impl Ledger {
    /// What is to be told now; `None` if that is nothing.
    pub(super) fn due(&mut self, standings: &Standings, now: Instant) -> Option<PodReport> {
        // A pod that has gone says nothing any more.
        self.told.retain(|uid, _| standings.contains_key(uid));
        self.waiting
            .retain(|uid, _| matches!(standings.get(uid), Some(Standing::Waiting(_))));
        let mut due = Vec::new();
        for (uid, standing) in standings {
            let told = self.told.get(uid);
            let state = match standing {
                Standing::Settled(state) => Some(state),
                Standing::Waiting(state) => {
                    let since = *self.waiting.entry(uid.clone()).or_insert(now);
                    (now.duration_since(since) >= GRACE).then_some(state)
                }
                Standing::NotAsked(state) => Some(state).filter(|_| told.is_some()),
                Standing::Passing => None,
            };
            due.extend(state.filter(|state| told != Some(*state)).cloned());
        }
        let is_all = due.len() <= MAX_PODS;
        due.truncate(MAX_PODS);
        let mut report = PodReport {
            pods: due,
            ..PodReport::default()
        };
        if is_all && !self.is_complete {
            let asked = standings
                .iter()
                .filter(|(_, standing)| !matches!(standing, Standing::NotAsked(_)));
            report.asked = asked.map(|(uid, _)| uid.to_string()).collect();
            // In a call of its own if it doesn't fit beside others.
            report.is_complete = report.pods.is_empty() && report.asked.len() <= MAX_ASKED;
            if !report.is_complete {
                report.asked.clear();
            }
        }
        (!report.pods.is_empty() || report.is_complete).then_some(report)
    }

    /// Control took it.
    pub(super) fn taken(&mut self, report: PodReport) {
        self.is_complete |= report.is_complete;
        for state in report.pods {
            self.told
                .insert(WorkloadUid(state.uid.as_str().into()), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(uid: &str, reason: &str) -> PodState {
        PodState {
            uid: uid.into(),
            reason: reason.into(),
            ..PodState::default()
        }
    }

    fn standings(of: &[(&str, &str)]) -> Standings {
        let standing = |(uid, word): &(&str, &str)| {
            let standing = match *word {
                "Enrolled" => Standing::Settled(state(uid, word)),
                "NoInterface" => Standing::Waiting(state(uid, word)),
                "NotAsked" => Standing::NotAsked(state(uid, word)),
                _ => Standing::Passing,
            };
            (WorkloadUid((*uid).into()), standing)
        };
        of.iter().map(standing).collect()
    }

    /// In words: `uid reason` of each pod, then what is asked.
    fn words(report: Option<&PodReport>) -> String {
        let Some(report) = report else {
            return String::new();
        };
        let pods = report
            .pods
            .iter()
            .map(|state| format!("{} {}", state.uid, state.reason));
        let asked = report
            .is_complete
            .then(|| format!("all: {}", report.asked.join(" ")));
        pods.chain(asked).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn only_what_is_new_is_told_and_at_first_which_pods_there_are() {
        let begun = Instant::now();
        let mut ledger = Ledger::default();
        let enrolled = ("a", "Enrolled");
        // Second, pods, what is told, and whether control takes it.
        for (second, pods, expected, is_taken) in [
            (0, vec![enrolled, ("x", "NotAsked")], "a Enrolled", false),
            (1, vec![enrolled, ("x", "NotAsked")], "a Enrolled", true),
            (2, vec![enrolled, ("x", "NotAsked")], "all: a", true),
            (3, vec![enrolled, ("x", "NotAsked")], "", true),
            (4, vec![enrolled, ("b", "NoInterface")], "", true),
            (8, vec![enrolled, ("b", "NoInterface")], "", true),
            (
                9,
                vec![enrolled, ("b", "NoInterface")],
                "b NoInterface",
                true,
            ),
            (
                10,
                vec![("a", "Passing"), ("b", "Enrolled")],
                "b Enrolled",
                true,
            ),
            (
                11,
                vec![("a", "NotAsked"), ("b", "NoInterface")],
                "a NotAsked",
                true,
            ),
            (12, vec![("a", "NotAsked"), ("b", "NoInterface")], "", true),
            (13, vec![("b", "Enrolled")], "", true),
            (14, vec![enrolled], "a Enrolled", true),
        ] {
            let now = begun + Duration::from_secs(second);
            let report = ledger.due(&standings(&pods), now);
            assert_eq!(words(report.as_ref()), expected, "second {second}");
            if let Some(report) = report.filter(|_| is_taken) {
                ledger.taken(report);
            }
        }
    }

    #[test]
    fn many_pods_take_several_reports() {
        let names: Vec<String> = (0..MAX_PODS * 2 + 1).map(|it| it.to_string()).collect();
        let pods: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), "Enrolled"))
            .collect();
        let mut ledger = Ledger::default();
        let mut sizes = Vec::new();
        while let Some(report) = ledger.due(&standings(&pods), Instant::now()) {
            sizes.push((report.pods.len(), report.asked.len()));
            ledger.taken(report);
        }
        assert_eq!(
            sizes,
            [(MAX_PODS, 0), (MAX_PODS, 0), (1, 0), (0, names.len())]
        );
    }
}
