//! Waiting for what announces itself by no event.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// Only for what has no event to wait for: a counter that moves, a rule that disappears.
///
/// # Panics
/// When it doesn't hold within `deadline`, with `what` in the message.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let result = poll(what, deadline, || {
        if condition() {
            Ok(())
        } else {
            Err("it isn't so".into())
        }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Asks `attempt` again until it yields a value; its last complaint is in the error.
pub(crate) fn poll<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(state) if Instant::now() >= end => {
                return Err(Error::Timeout {
                    waiting_for: what.into(),
                    after: deadline,
                    state,
                });
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_becomes_true_is_seen() {
        let mut looks = 0;
        eventually("three looks", Duration::from_secs(10), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "the impossible didn't happen within 1ms")]
    fn a_condition_that_stays_false_is_named() {
        eventually("the impossible", Duration::from_millis(1), || false);
    }
}
