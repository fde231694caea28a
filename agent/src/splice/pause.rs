//! Waiting for an application that is full.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{self, Sleep};

/// The first pause: the runtime's timer knows no shorter one.
const FIRST: Duration = Duration::from_millis(1);
/// Pauses double up to this: what a reader that has stopped costs, and the longest that one which
/// goes on waits for what comes after it has read all.
const LAST: Duration = Duration::from_millis(64);

/// Pauses between attempts to write to an application that is full. They grow for as long as
/// nothing is taken.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    running: Option<Pin<Box<Sleep>>>,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            next: FIRST,
            running: None,
        }
    }
}

impl Pause {
    /// Waits for the end of the pause, which begins here if none has.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let next = self.next;
        let running = self
            .running
            .get_or_insert_with(|| Box::pin(time::sleep(next)));
        ready!(running.as_mut().poll(context));
        self.running = None;
        self.next = (self.next * 2).min(LAST);
        Poll::Ready(())
    }

    /// Something was taken.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_bound_until_something_is_taken() {
        let mut pause = Pause::default();
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            let before = Instant::now();
            poll_fn(|context| pause.poll(context)).await;
            assert_eq!(before.elapsed(), Duration::from_millis(expected));
        }
        pause.reset();
        let before = Instant::now();
        poll_fn(|context| pause.poll(context)).await;
        assert_eq!(before.elapsed(), FIRST);
    }
}
