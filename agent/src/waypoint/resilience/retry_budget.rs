//! How many requests may be sent again, so that retries don't become the load that keeps a service down.

use std::time::{Duration, Instant};

use crate::discovery::model::RetryBudgetPolicy;

/// Seconds over which requests and retries are compared.
const WINDOW: usize = 10;

/// Counts requests and retries of the last ten seconds.
///
/// A retry is paid for by the requests of that time (a percentage of them), or else from a reserve that fills up
/// with `min_per_second` each second and holds no more than one second's.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    /// When the first request came; seconds are counted from it.
    start: Option<Instant>,
    /// The second that was counted last.
    second: u64,
    slots: [Slot; WINDOW],
    reserve: Reserve,
}

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    requests: u64,
    /// Those that requests paid for.
    retries: u64,
}

/// Retries that may be taken without requests.
#[derive(Debug, Default)]
struct Reserve {
    /// The time up to which it was filled.
    filled: Option<Instant>,
    /// What is left of the last second, of which each retry takes its part.
    left: Duration,
}

impl RetryBudget {
    /// A request that is no retry.
    pub(super) fn request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry from the budget. Whether there was one.
    pub(super) fn retry(&mut self, policy: &RetryBudgetPolicy, now: Instant) -> bool {
        self.slot(now);
        let sum = |of: fn(&Slot) -> u64| self.slots.iter().map(of).sum::<u64>();
        let paid = sum(|slot| slot.requests).saturating_mul(policy.percent.into());
        if (sum(|slot| slot.retries) + 1).saturating_mul(100) <= paid {
            self.slot(now).retries += 1;
            return true;
        }
        self.reserve.take(policy.min_per_second, now)
    }

    /// The slot of this second; those of seconds that went by meanwhile are emptied.
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let start = *self.start.get_or_insert(now);
        // Never back, should a request that took its time earlier be counted later.
        let second = now.saturating_duration_since(start).as_secs();
        let second = second.max(self.second);
        for passed in (self.second + 1..=second).take(WINDOW) {
            self.slots[index(passed)] = Slot::default();
        }
        self.second = second;
        &mut self.slots[index(second)]
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % WINDOW as u64).unwrap_or(0)
}

impl Reserve {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        const FULL: Duration = Duration::from_secs(1);
        let Some(price) = FULL.checked_div(per_second) else {
            return false;
        };
        let passed = match self.filled {
            None => FULL,
            Some(filled) => now.saturating_duration_since(filled),
        };
        self.filled = self.filled.max(Some(now));
        self.left = self.left.saturating_add(passed).min(FULL);
        let rest = self.left.checked_sub(price);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests;
