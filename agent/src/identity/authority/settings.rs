//! Lives and overlaps, and which of them contradict each other.

use std::time::Duration;

use super::{Error, rotation::Schedule};

/// How the authority signs and rotates.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only trust domain that it signs for. Default `cluster.local`.
    pub trust_domain: String,
    /// Longest life of a workload's certificate; what is asked beyond it is shortened. Default
    /// 24 h. Shorter means more calls of every node.
    pub certificate_ttl: Duration,
    /// Life of a root. Default 3650 days.
    pub root_ttl: Duration,
    /// How long a new root is trusted before it signs. At least `certificate_ttl`. Default 48 h.
    pub root_overlap: Duration,
    /// Rotation begins when the root has less life left than this, and in any case early enough
    /// that no certificate outlives its root. Default 365 days.
    pub rotate_before: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            trust_domain: "cluster.local".to_owned(),
            certificate_ttl: DAY,
            root_ttl: 3650 * DAY,
            root_overlap: 2 * DAY,
            rotate_before: 365 * DAY,
        }
    }
}

impl Settings {
    /// What the state machine needs of them, if they don't contradict each other.
    pub(super) fn check(&self) -> Result<Schedule, Error> {
        let invalid = |why: String| Err(Error::Settings(why));
        if self.certificate_ttl < Duration::from_secs(1) {
            return invalid(format!(
                "a certificate life of {:?} is too short: certificates count in seconds",
                self.certificate_ttl
            ));
        }
        if self.root_overlap < self.certificate_ttl {
            return invalid(format!(
                "a root overlap of {:?} is shorter than a certificate's life of {:?}: agents would \
                 meet a root that they don't know yet",
                self.root_overlap, self.certificate_ttl
            ));
        }
        // A new root must have a time in which it needs no successor yet.
        let needed = self
            .rotate_before
            .max(self.root_overlap + self.certificate_ttl)
            + self.root_overlap;
        if self.root_ttl <= needed {
            return invalid(format!(
                "a root life of {:?} leaves no time between rotations, which need {needed:?}",
                self.root_ttl
            ));
        }
        Ok(Schedule {
            certificate_ttl: self.certificate_ttl,
            overlap: self.root_overlap,
            rotate_before: self.rotate_before,
        })
    }
}
