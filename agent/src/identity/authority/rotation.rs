//! Which root signs and which are trusted, as a state machine over time. No I/O, no clock.
//!
//! A root is *staged* (in the bundle, doesn't sign yet), then *active* (signs), then *retired*
//! (signs no more, still in the bundle), then dropped. It is staged for at least one certificate
//! life: agents get the bundle with each certificate, so by then every agent trusts it. It stays
//! retired until the last certificate that it signed has expired.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// How roots are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Longest life of a certificate that is signed now.
    pub certificate_ttl: Duration,
    /// How long a root is staged; never less than the longest certificate life.
    pub overlap: Duration,
    /// Rotation begins when the active root has less life than this left; never less than
    /// `overlap` + `certificate_ttl`, so that no certificate outlives its root.
    pub rotate_before: Duration,
}

/// A root, as the state machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Names the root's files and its subject.
    pub id: String,
    /// When it expires.
    pub not_after: SystemTime,
    /// Where it stands.
    pub stage: Stage,
    /// The longest life of any certificate that it signed, over all restarts and settings.
    pub longest_certificate: Duration,
}

/// Where a root stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Trusted, doesn't sign yet.
    Staged {
        /// When it came into the bundle.
        since: SystemTime,
    },
    /// Signs.
    Active,
    /// Trusted until everything that it signed has expired.
    Retired {
        /// When it is dropped.
        until: SystemTime,
    },
}

/// One change to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a root that stands here from its first moment.
    Create(Stage),
    /// This root signs from now on; the one that did retires.
    Activate(String),
    /// This root is trusted no more.
    Drop(String),
}

/// The next change that is due, if any. `requested`: an operator asked for a rotation.
#[must_use]
pub fn next_step(
    roots: &[Root],
    schedule: &Schedule,
    now: SystemTime,
    requested: bool,
) -> Option<Step> {
    let gone = roots.iter().find(|root| match root.stage {
        Stage::Retired { until } => until <= now,
        Stage::Staged { .. } => root.not_after <= now,
        Stage::Active => false,
    });
    if let Some(root) = gone {
        return Some(Step::Drop(root.id.clone()));
    }
    let active = active(roots).filter(|root| root.not_after > now);
    match (active, staged(roots)) {
        // Nobody can be trusting anything else: waiting would help nobody.
        (None, None) => Some(Step::Create(Stage::Active)),
        (None, Some((root, _))) => Some(Step::Activate(root.id.clone())),
        (Some(active), Some((root, since))) => {
            (activation(active, since, schedule) <= now).then(|| Step::Activate(root.id.clone()))
        }
        (Some(active), None) => (requested || beginning(active, schedule) <= now)
            .then_some(Step::Create(Stage::Staged { since: now })),
    }
}

/// When [`next_step`] will have something to do, unless somebody asks before.
#[must_use]
pub fn next_due(roots: &[Root], schedule: &Schedule) -> Option<SystemTime> {
    let staged = staged(roots);
    let retirements = roots.iter().filter_map(|root| match root.stage {
        Stage::Retired { until } => Some(until),
        Stage::Active | Stage::Staged { .. } => None,
    });
    let rotation = active(roots).map(|active| match staged {
        Some((_, since)) => activation(active, since, schedule).min(active.not_after),
        None => beginning(active, schedule),
    });
    retirements.chain(rotation).min()
}

/// Applies [`Step::Activate`] to the records.
pub fn activate(roots: &mut [Root], id: &str, schedule: &Schedule, now: SystemTime) {
    for root in roots {
        if root.id == id {
            root.stage = Stage::Active;
            root.longest_certificate = schedule.certificate_ttl;
        } else if root.stage == Stage::Active {
            let until = (now + root.longest_certificate).min(root.not_after);
            root.stage = Stage::Retired { until };
        }
    }
}

/// The root that signs.
#[must_use]
pub fn active(roots: &[Root]) -> Option<&Root> {
    roots.iter().find(|root| root.stage == Stage::Active)
}

fn staged(roots: &[Root]) -> Option<(&Root, SystemTime)> {
    roots.iter().find_map(|root| match root.stage {
        Stage::Staged { since } => Some((root, since)),
        Stage::Active | Stage::Retired { .. } => None,
    })
}

/// When a staged root may sign: every certificate issued before it was staged has expired.
fn activation(active: &Root, since: SystemTime, schedule: &Schedule) -> SystemTime {
    since + schedule.overlap.max(active.longest_certificate)
}

/// When the successor of this root is to be staged.
fn beginning(active: &Root, schedule: &Schedule) -> SystemTime {
    let longest = schedule.certificate_ttl.max(active.longest_certificate);
    let needed = schedule.overlap.max(longest) + longest;
    active
        .not_after
        .checked_sub(schedule.rotate_before.max(needed))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
