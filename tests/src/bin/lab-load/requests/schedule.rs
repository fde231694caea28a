//! When requests of a fixed rate are due.

use crate::poll::SECOND;

/// Every so-many-th request of a rate, fixed before the first one is made: nothing that happens to
/// a request moves a later one.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    begin: u64,
    rate: u64,
    step: u64,
    next: u64,
}

impl Schedule {
    /// Of `rate` requests a second from `begin` on (nanoseconds), those of one of `threads`.
    pub(super) fn new(begin: u64, rate: u32, threads: usize, thread: usize) -> Self {
        Self {
            begin,
            rate: u64::from(rate),
            step: threads as u64,
            next: thread as u64,
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> u64 {
        // From the beginning each time, so that no rounding adds up. In two parts: the product of
        // all would overflow after hours.
        let (seconds, rest) = (self.next / self.rate, self.next % self.rate);
        self.begin + seconds * SECOND + rest * SECOND / self.rate
    }

    /// Takes the next one, and says when it was due.
    pub(super) fn take(&mut self) -> u64 {
        let due = self.next();
        self.next += self.step;
        due
    }

    /// Takes all that are due before `end`, and says how many.
    pub(super) fn due_until(&mut self, end: u64) -> u64 {
        let mut due = 0;
        while self.next() < end {
            self.take();
            due += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{SECOND, Schedule};

    #[test]
    fn requests_are_due_evenly() {
        let mut schedule = Schedule::new(1000, 3, 1, 0);
        let due: Vec<u64> = (0..5).map(|_| schedule.take()).collect();
        let expected = [0, 333_333_333, 666_666_666, SECOND, 1_333_333_333];
        assert_eq!(due, expected.map(|after| 1000 + after));
    }

    #[test]
    fn what_was_not_taken_is_counted() {
        let mut schedule = Schedule::new(0, 1000, 1, 0);
        for _ in 0..400 {
            schedule.take();
        }
        assert_eq!(schedule.due_until(SECOND), 600);
        assert_eq!(schedule.due_until(SECOND), 0);
    }

    proptest! {
        #[test]
        fn threads_share_one_schedule(rate in 1_u32..1_000_000, threads in 1_usize..9) {
            let mut all: Vec<u64> = (0..threads)
                .flat_map(|thread| {
                    let mut part = Schedule::new(7, rate, threads, thread);
                    (0..10).map(move |_| part.take()).collect::<Vec<_>>()
                })
                .collect();
            all.sort_unstable();
            let mut whole = Schedule::new(7, rate, 1, 0);
            prop_assert_eq!(all, (0..threads * 10).map(|_| whole.take()).collect::<Vec<_>>());
        }
    }
}
