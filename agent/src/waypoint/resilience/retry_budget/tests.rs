use super::*;

/// What happens, in milliseconds since the start.
enum Step {
    Requests(u64, usize),
    /// So many are tried, so many of them allowed.
    Retries(u64, usize, usize),
}
use Step::{Requests, Retries};

fn check(what: &str, percent: u32, min_per_second: u32, steps: &[Step]) {
    let policy = RetryBudgetPolicy {
        percent,
        min_per_second,
    };
    let mut budget = RetryBudget::default();
    let start = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Requests(at, count) => {
                let now = start + Duration::from_millis(*at);
                (0..*count).for_each(|_| budget.request(now));
            }
            Retries(at, tried, expected) => {
                let now = start + Duration::from_millis(*at);
                let allowed = (0..*tried).filter(|_| budget.retry(&policy, now)).count();
                assert_eq!(allowed, *expected, "{what}, step {index}");
            }
        }
    }
}

#[test]
fn retries_are_paid_for_by_requests_or_from_the_reserve() {
    check(
        "without requests, as many as the reserve holds",
        20,
        10,
        &[Retries(0, 30, 10), Retries(0, 1, 0)],
    );
    check(
        "the reserve fills up evenly, up to one second's",
        20,
        10,
        &[
            Retries(0, 10, 10),
            Retries(99, 1, 0),
            Retries(100, 2, 1),
            Retries(1_100, 20, 10),
            Retries(60_000, 20, 10),
        ],
    );
    check(
        "a fifth of the requests, before the reserve",
        20,
        10,
        &[Requests(0, 100), Retries(0, 50, 30)],
    );
    check(
        "a share below one retry is none",
        20,
        0,
        &[
            Requests(0, 4),
            Retries(0, 1, 0),
            Requests(0, 1),
            Retries(0, 2, 1),
        ],
    );
    check(
        "requests pay for ten seconds",
        50,
        0,
        &[
            Requests(0, 10),
            Retries(9_999, 3, 3),
            Retries(10_000, 3, 0),
            Requests(10_000, 10),
            Retries(10_500, 9, 2),
            Retries(19_999, 9, 3),
        ],
    );
    check(
        "after a long silence nothing is left over",
        100,
        0,
        &[Requests(0, 10), Retries(0, 4, 4), Retries(123_456, 5, 0)],
    );
    check("none at all", 0, 0, &[Requests(0, 1_000), Retries(5, 1, 0)]);
}

#[test]
fn a_request_that_is_counted_late_counts_for_the_present() {
    check(
        "",
        100,
        0,
        &[
            Requests(5_000, 1),
            Requests(9_000, 1),
            Requests(7_000, 1),
            Retries(9_000, 9, 3),
        ],
    );
}

proptest::proptest! {
    /// Whatever comes when: never more than the share of the requests of the last ten seconds and what
    /// the reserve had.
    #[test]
    fn no_order_of_events_overdraws(events in proptest::collection::vec((0u64..3_000, 0u8..2), 0..200)) {
        let policy = RetryBudgetPolicy { percent: 20, min_per_second: 3 };
        let (mut budget, start) = (RetryBudget::default(), Instant::now());
        let (mut at, mut requests, mut retries) = (0, 0u64, 0u64);
        for (pause, event) in events {
            at += pause;
            let now = start + Duration::from_millis(at);
            if event == 0 {
                budget.request(now);
                requests += 1;
            } else if budget.retry(&policy, now) {
                retries += 1;
            }
            let reserve = 3 + at * 3 / 1_000;
            proptest::prop_assert!(retries <= requests / 5 + reserve, "{retries} after {requests}");
        }
    }
}
