//! What has been told already: pure.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{control::events::Notice, discovery::facts::ObjectKey};

/// An API server forgets Events after an hour if nothing else is set: what lasts is told again before.
const REPEAT: Duration = Duration::from_secs(50 * 60);
/// Problems that are told of: some MiB. A cluster that has more is helped by the first ones.
const MOST: usize = 4096;

/// Something that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::control) struct Complaint {
    pub(in crate::control) about: ObjectKey,
    pub(in crate::control) notice: Notice,
}

/// When each was told last.
#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<Complaint, Instant>);

impl Ledger {
    /// What is to be told now, of all that is wrong now. What isn't wrong any more is forgotten: if it comes back,
    /// it is told at once.
    pub(super) fn due(&mut self, wrong: Vec<Complaint>, now: Instant) -> Vec<Complaint> {
        let wrong: Vec<_> = wrong.into_iter().take(MOST).collect();
        let current: HashSet<&Complaint> = wrong.iter().collect();
        self.0.retain(|told, _| current.contains(told));
        let is_due = |complaint: &Complaint| {
            let told = self.0.get(complaint);
            told.is_none_or(|at| now.duration_since(*at) >= REPEAT)
        };
        wrong.into_iter().filter(is_due).collect()
    }

    pub(super) fn told(&mut self, complaint: Complaint, now: Instant) {
        self.0.insert(complaint, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{facts::Kind, model::ObjectName};

    fn complaint(note: &str) -> Complaint {
        let name = ObjectName {
            namespace: "shop".into(),
            name: "deny".into(),
        };
        Complaint {
            about: ObjectKey {
                kind: Kind::AuthorizationPolicy,
                name,
            },
            notice: Notice {
                warns: true,
                reason: "InvalidField",
                action: "Read",
                note: note.into(),
            },
        }
    }

    #[test]
    fn a_problem_is_told_when_it_appears_and_again_before_its_event_is_forgotten() {
        let begun = Instant::now();
        let mut ledger = Ledger::default();
        for (minute, wrong, expected) in [
            (0, &["a"][..], &["a"][..]),
            (1, &["a"], &[]),
            (2, &["a", "b"], &["b"]),
            (3, &["a"], &[]),
            (4, &["a", "b"], &["b"]),
            (49, &["a", "b"], &[]),
            (50, &["a", "b"], &["a"]),
            (51, &["c"], &["c"]),
            (52, &[], &[]),
        ] {
            let now = begun + Duration::from_secs(minute * 60);
            let wrong = wrong.iter().map(|note| complaint(note)).collect();
            let due = ledger.due(wrong, now);
            let notes: Vec<_> = due.iter().map(|due| due.notice.note.clone()).collect();
            assert_eq!(notes, expected, "minute {minute}");
            for complaint in due {
                ledger.told(complaint, now);
            }
        }
        assert!(ledger.0.is_empty());
    }

    #[test]
    fn what_is_told_is_bounded() {
        let wrong = (0..MOST + 10).map(|number| complaint(&number.to_string()));
        let due = Ledger::default().due(wrong.collect(), Instant::now());
        assert_eq!(due.len(), MOST);
    }
}
