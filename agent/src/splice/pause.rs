//! Waiting for an application that is full.

use std::time::Duration;

use tokio::time;

/// The first pause: the runtime's timer knows no shorter one.
const FIRST: Duration = Duration::from_millis(1);
/// Pauses double up to this: what a reader that has stopped costs, and the longest that one which
/// goes on waits for what comes after it has read all.
const LAST: Duration = Duration::from_millis(64);

/// Pauses between attempts to write to an application that is full. They grow for as long as
/// nothing is taken.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pause {
    /// Waits for the next attempt.
    pub(super) async fn wait(&mut self) {
        time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LAST);
    }

    /// Something was taken.
    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_bound_until_something_is_taken() {
        let mut pause = Pause::default();
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            let before = Instant::now();
            pause.wait().await;
            assert_eq!(before.elapsed(), Duration::from_millis(expected));
        }
        pause.reset();
        let before = Instant::now();
        pause.wait().await;
        assert_eq!(before.elapsed(), FIRST);
    }
}
