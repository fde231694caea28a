use super::*;

const NOBODY: [u8; 0] = [];
const SECOND: Duration = Duration::from_secs(1);
const POLICY: OutlierEjection = OutlierEjection {
    consecutive_errors: Some(3),
    interval: Duration::from_secs(10),
    base_ejection: Duration::from_secs(30),
    max_ejected_percent: 50,
    success_rate: None,
};
const BY_RATE: OutlierEjection = OutlierEjection {
    consecutive_errors: None,
    success_rate: Some(SuccessRate {
        minimum_hosts: 3,
        request_volume: 10,
        deviation_thousandths: 1_000,
    }),
    ..POLICY
};

fn at(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 80).into()
}

/// A backend under a policy, told in seconds since the start.
struct Story {
    outliers: Outliers,
    policy: OutlierEjection,
    start: Instant,
}

impl Story {
    fn new(policy: OutlierEjection, endpoints: usize) -> Self {
        let mut outliers = Outliers::default();
        outliers.set_endpoints(endpoints);
        Self {
            outliers,
            policy,
            start: Instant::now(),
        }
    }

    /// `+` for success and `-` for failure. Answers for how many seconds the endpoint is ejected by
    /// the last of them.
    fn results(&mut self, second: u64, endpoint: u8, results: &str) -> Option<u64> {
        let now = self.start + SECOND * u32::try_from(second).unwrap();
        let mut ejected = None;
        for result in results.chars() {
            let finished = self
                .outliers
                .finished(&self.policy, at(endpoint), result == '+', now);
            let own = finished
                .iter()
                .find(|ejection| ejection.endpoint == at(endpoint));
            ejected = own.map(|ejection| ejection.duration.as_secs());
        }
        ejected
    }

    fn ejected(&self, second: u64) -> Vec<u8> {
        let now = self.start + SECOND * u32::try_from(second).unwrap();
        let ejected: Vec<u8> = (1..=20)
            .filter(|last| self.outliers.is_ejected(at(*last), now))
            .collect();
        assert_eq!(self.outliers.ejected(now), ejected.len());
        assert!(ejected.is_empty() || self.outliers.has_ejected(now));
        ejected
    }
}

#[test]
fn only_errors_in_a_row_eject() {
    for (results, expected) in [
        ("--", None),
        ("---", Some(30)),
        ("--+--", None),
        ("--+---", Some(30)),
        ("++++++", None),
    ] {
        let mut story = Story::new(POLICY, 4);
        assert_eq!(story.results(0, 1, results), expected, "{results}");
    }
}

#[test]
fn ejections_grow_with_each_and_shrink_with_each_good_interval() {
    let mut story = Story::new(POLICY, 4);
    assert_eq!(story.results(0, 1, "---"), Some(30));
    assert_eq!(story.ejected(29), [1]);
    assert_eq!(story.ejected(30), NOBODY);
    assert_eq!(story.results(30, 1, "---"), Some(60));
    assert_eq!(story.ejected(89), [1]);
    assert_eq!(story.ejected(90), NOBODY);
    // The interval with its errors forgives nothing; the two after it do.
    for second in [91, 102, 113] {
        assert_eq!(story.results(second, 1, "+"), None);
    }
    assert_eq!(story.results(114, 1, "---"), Some(30));
}

#[test]
fn no_ejection_is_longer_than_five_minutes_unless_the_first_is() {
    for (base, expected) in [(100, [100, 200, 300, 300]), (400, [400, 400, 400, 400])] {
        let policy = OutlierEjection {
            base_ejection: SECOND * base,
            interval: SECOND * 10_000,
            ..POLICY
        };
        let mut story = Story::new(policy, 4);
        let ejections = [0, 1_000, 2_000, 3_000].map(|second| story.results(second, 1, "---"));
        assert_eq!(ejections, expected.map(Some), "{base}");
    }
}

#[test]
fn an_ejected_endpoint_is_not_ejected_again_by_requests_that_were_under_way() {
    let mut story = Story::new(POLICY, 4);
    assert_eq!(story.results(0, 1, "---"), Some(30));
    assert_eq!(story.results(1, 1, "------"), None);
    assert_eq!(story.ejected(30), NOBODY);
}

#[test]
fn no_more_than_a_share_are_ejected_but_one_always_may_be() {
    for (endpoints, percent, expected) in [
        (1, 50, 1),
        (2, 50, 1),
        (3, 50, 1),
        (4, 50, 2),
        (10, 30, 3),
        (10, 1, 1),
        (5, 100, 5),
    ] {
        let policy = OutlierEjection {
            max_ejected_percent: percent,
            ..POLICY
        };
        let mut story = Story::new(policy, endpoints.into());
        for endpoint in 1..=endpoints {
            story.results(0, endpoint, "---");
        }
        let ejected = story.ejected(1).len();
        assert_eq!(ejected, expected, "{percent} % of {endpoints}");
    }
}

#[test]
fn a_success_rate_far_below_the_others_ejects_at_the_end_of_the_interval() {
    let good = "++++++++++";
    let mut two = vec![good; 8];
    two.extend(["++++------", "+---------"]);
    for (what, percent, results, expected) in [
        ("all alike", 50, vec![good; 4], vec![]),
        (
            "one fails half",
            50,
            vec![good, good, good, "+-+-+-+-+-"],
            vec![4],
        ),
        (
            "one has too few requests",
            50,
            vec![good, good, good, "---------"],
            vec![],
        ),
        ("too few others", 50, vec![good, "+-+-+-+-+-"], vec![]),
        ("all fail", 50, vec!["----------"; 4], vec![]),
        ("both that fail", 50, two.clone(), vec![9, 10]),
        (
            "the worst first, and no more than allowed",
            10,
            two,
            vec![10],
        ),
    ] {
        let policy = OutlierEjection {
            max_ejected_percent: percent,
            ..BY_RATE
        };
        let mut story = Story::new(policy, results.len());
        for (index, results) in results.iter().enumerate() {
            story.results(1, u8::try_from(index).unwrap() + 1, results);
        }
        assert_eq!(story.ejected(9), NOBODY, "{what}, before the end");
        story.results(11, 20, "+");
        assert_eq!(story.ejected(11), expected, "{what}");
    }
}

#[test]
fn an_interval_counts_its_own_requests_only() {
    let mut story = Story::new(BY_RATE, 4);
    for endpoint in 1..=3 {
        story.results(1, endpoint, "++++++++++");
    }
    story.results(1, 4, "+++++");
    story.results(11, 4, "-----");
    for endpoint in 1..=3 {
        story.results(12, endpoint, "++++++++++");
    }
    story.results(22, 1, "+");
    assert_eq!(story.ejected(22), NOBODY);
}

#[test]
fn nothing_is_remembered_of_endpoints_that_are_gone_or_do_well() {
    let mut story = Story::new(POLICY, 4);
    story.results(0, 1, "+++");
    assert!(story.outliers.records.is_empty());
    story.results(0, 1, "---");
    story.results(0, 2, "--");
    story.outliers.retain(|endpoint| endpoint != at(1));
    assert_eq!(story.ejected(1), NOBODY);
    story.results(5, 2, "+");
    // The interval that saw its errors ends, then one without.
    story.results(11, 3, "+");
    assert_eq!(story.outliers.records.len(), 0);
}

proptest::proptest! {
    /// Whatever happens: no more are ejected than allowed, and all come back.
    #[test]
    fn no_order_of_results_ejects_too_many(
        percent in 0u32..=100,
        results in proptest::collection::vec((1u8..=6, proptest::prelude::any::<bool>(), 0u64..5), 0..300),
    ) {
        let success_rate = BY_RATE.success_rate;
        let policy = OutlierEjection { max_ejected_percent: percent, success_rate, ..POLICY };
        let mut story = Story::new(policy, 6);
        let most = (6 * percent as usize / 100).max(1);
        let mut second = 0;
        for (endpoint, is_success, pause) in results {
            second += pause;
            story.results(second, endpoint, if is_success { "+" } else { "-" });
            proptest::prop_assert!(story.ejected(second).len() <= most);
        }
        let longest = OutlierEjection::LONGEST.as_secs();
        proptest::prop_assert_eq!(story.ejected(second + longest), Vec::<u8>::new());
    }
}
