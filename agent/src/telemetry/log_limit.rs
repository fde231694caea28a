//! Lines that somebody else could have written without end.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// In which so many lines are let through.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets some lines through in ten seconds, and says how many were left out.
#[derive(Debug)]
pub(crate) struct LogLimit {
    lines: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl LogLimit {
    /// Of so many lines in ten seconds.
    pub(crate) const fn of(lines: u32) -> Self {
        Self {
            lines,
            state: Mutex::new(State {
                since: None,
                said: 0,
                unsaid: 0,
            }),
        }
    }

    /// Whether to log now: how many lines were left out since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now >= since + INTERVAL) {
            (state.since, state.said) = (Some(now), 0);
        }
        if state.said == self.lines {
            state.unsaid += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.unsaid))
    }
}

impl Default for LogLimit {
    /// One line.
    fn default() -> Self {
        Self::of(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_in_a_while_are_let_through_with_the_count_of_the_others() {
        let (log, start) = (LogLimit::default(), Instant::now());
        assert_eq!(log.admit_at(start), Some(0));
        assert_eq!(log.admit_at(start), None);
        assert_eq!(log.admit_at(start + INTERVAL / 2), None);
        assert_eq!(log.admit_at(start + INTERVAL), Some(2));
        assert_eq!(log.admit_at(start + 2 * INTERVAL), Some(0));

        let log = LogLimit::of(2);
        let said = [0; 3].map(|_| log.admit_at(start));
        assert_eq!(said, [Some(0), Some(0), None]);
    }
}
