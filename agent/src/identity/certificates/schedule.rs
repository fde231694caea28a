//! When to renew. Pure: times in, durations out.

use std::time::{Duration, SystemTime};

/// No certificate is asked for more often, whatever life the authority gives.
const SHORTEST: Duration = Duration::from_millis(500);
/// The wait after the first failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait between attempts.
const LAST_BACKOFF: Duration = Duration::from_secs(150);
/// Spreads what would otherwise happen at one moment on every node.
const SPREAD: f64 = 0.1;

/// How long after `now` to renew a certificate that was just received: half of the life that is
/// left, give or take a tenth of that. `jitter` is from -1 to 1.
///
/// Life is counted from `now` where that is later than `not_before`: authorities set that back
/// to allow for clocks that are behind, for certificates of some minutes by most of their life.
#[must_use]
pub fn next_renewal(
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
    jitter: f64,
) -> Duration {
    let begins = not_before.max(now);
    let life = not_after.duration_since(begins).unwrap_or_default();
    let ahead = begins.duration_since(now).unwrap_or_default();
    (ahead + spread(life / 2, jitter)).max(SHORTEST)
}

/// How long to wait after this many failures in a row (from 1). `jitter` is from -1 to 1.
#[must_use]
pub fn backoff(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    spread(
        (FIRST_BACKOFF * 2u32.pow(doublings)).min(LAST_BACKOFF),
        jitter,
    )
}

fn spread(duration: Duration, jitter: f64) -> Duration {
    duration.mul_f64(1.0 + SPREAD * jitter.clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn renewal_is_due_at_half_of_the_life_that_is_left() {
        // not_before, not_after, now in seconds; jitter; expected wait in milliseconds.
        for (not_before, not_after, now, jitter, expected) in [
            (1_000, 1_100, 1_000, 0.0, 50_000),
            (1_000, 1_100, 1_000, 1.0, 55_000),
            (1_000, 1_100, 1_000, -1.0, 45_000),
            // Set back by the authority: what is left counts.
            (940, 1_010, 1_000, 0.0, 5_000),
            // Not valid yet: our clock is behind.
            (1_010, 1_110, 1_000, 0.0, 60_000),
            // Never faster than twice a second.
            (940, 1_000, 1_000, 0.0, 500),
            (940, 990, 1_000, 0.0, 500),
            // A jitter out of bounds is bounded.
            (1_000, 1_100, 1_000, 7.0, 55_000),
        ] {
            let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(
                next_renewal(at(not_before), at(not_after), at(now), jitter).as_millis(),
                expected,
                "{not_before} {not_after} {now} {jitter}"
            );
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        for (failures, jitter, expected) in [
            (1, 0.0, 500),
            (2, 0.0, 1_000),
            (3, 1.0, 2_200),
            (9, 0.0, 128_000),
            (10, 0.0, 150_000),
            (10, -1.0, 135_000),
            (u32::MAX, 0.0, 150_000),
        ] {
            assert_eq!(
                backoff(failures, jitter).as_millis(),
                expected,
                "{failures}"
            );
        }
    }
}
