//! Who may lead: pure, by a monotonic clock of one's own.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Changes with each write.
    pub(super) version: Option<String>,
    /// Nobody, if it was left.
    pub(super) holder: Option<Arc<str>>,
    /// For how long after a write it is the holder's.
    pub(super) valid: Duration,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is another's.
    Wait,
    /// Take it, or renew it.
    Write,
}

/// What one candidate knows.
#[derive(Debug)]
pub(super) struct Election {
    identity: Arc<str>,
    renew_deadline: Duration,
    /// The Lease, and since when it is like that at the latest.
    seen: Option<(Seen, Instant)>,
    /// When the last write of ours that succeeded had not been sent yet.
    renewed: Option<Instant>,
}

impl Election {
    pub(super) fn new(identity: Arc<str>, renew_deadline: Duration) -> Self {
        Self {
            identity,
            renew_deadline,
            seen: None,
            renewed: None,
        }
    }

    /// Takes in what the Lease says now; `None` if there is none.
    pub(super) fn look(&mut self, found: Option<Seen>, now: Instant) -> Step {
        let Some(found) = found else {
            self.seen = None;
            return Step::Write;
        };
        let since = match &self.seen {
            Some((before, since)) if *before == found => *since,
            _ => now,
        };
        let expires = since + found.valid;
        let is_ours = found.holder.as_ref() == Some(&self.identity);
        let is_free = found.holder.is_none() || now >= expires;
        self.seen = Some((found, since));
        if !is_ours {
            self.renewed = None;
        }
        if is_ours || is_free {
            Step::Write
        } else {
            Step::Wait
        }
    }

    /// A write that was sent after `begun` made the Lease ours.
    pub(super) fn written(&mut self, lease: Seen, begun: Instant) {
        self.seen = Some((lease, begun));
        self.renewed = Some(begun);
    }

    /// Until when this candidate leads if no renewal succeeds.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.renewed? + self.renew_deadline)
    }

    pub(super) fn is_leading(&mut self, now: Instant) -> bool {
        if self.deadline().is_some_and(|until| now >= until) {
            self.renewed = None;
        }
        self.renewed.is_some()
    }
}
