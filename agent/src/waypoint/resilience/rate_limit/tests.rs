use super::*;

fn limit(requests: u32, per: Duration, burst: u32, by: RateLimitBy) -> RateLimit {
    RateLimit {
        requests,
        per,
        burst,
        by,
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn policy(targets: Vec<TrafficPolicyTarget>, rate_limit: RateLimit) -> TrafficPolicy {
    TrafficPolicy {
        name: name("policy"),
        created: None,
        targets,
        backend: Arc::default(),
        rate_limit: Some(rate_limit),
        fault: None,
    }
}

fn service(port: Option<&str>) -> TrafficPolicyTarget {
    TrafficPolicyTarget::Service {
        name: "cart".into(),
        port: port.map(Arc::from),
    }
}

fn client(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn requests_pass_at_the_rate_and_in_bursts() {
    // Milliseconds, and how long one has to wait for the next; `None` if it passes.
    for (what, requests, per, burst, steps) in [
        (
            "one a second",
            1,
            1,
            1,
            &[(0, None), (1, Some(999)), (999, Some(1)), (1_000, None)][..],
        ),
        (
            "ten at once, then one each 100 ms",
            10,
            1,
            2,
            &[
                (0, None),
                (0, None),
                (0, Some(100)),
                (100, None),
                (150, Some(50)),
                (200, None),
            ],
        ),
        (
            "a pause fills it up, and no further",
            2,
            1,
            2,
            &[
                (0, None),
                (60_000, None),
                (60_000, None),
                (60_000, Some(500)),
            ],
        ),
        (
            "those that are refused cost nothing",
            1,
            1,
            1,
            &[(0, None), (500, Some(500)), (600, Some(400)), (1_000, None)],
        ),
        (
            "a minute",
            2,
            60,
            1,
            &[(0, None), (10_000, Some(20_000)), (30_000, None)],
        ),
        (
            "a clock that goes back",
            1,
            1,
            1,
            &[(5_000, None), (0, Some(6_000))],
        ),
    ] {
        let limits = RateLimits::default();
        let rate = limit(requests, SECOND * per, burst, RateLimitBy::Target);
        let policy = policy(vec![service(None)], rate);
        let (cart, start) = (name("cart"), Instant::now());
        let target = RateTarget::Service {
            name: &cart,
            port: 80,
        };
        for (index, (at, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_millis(*at);
            let waits = limits.admit(target, &policy, None, now).err();
            let waits = waits.map(|limited| limited.retry_after);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(waits, expected, "{what}, step {index}");
        }
    }
}

#[test]
fn whole_seconds_are_enough_to_wait() {
    for (milliseconds, expected) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
        let limited = RateLimited {
            retry_after: Duration::from_millis(milliseconds),
        };
        assert_eq!(limited.seconds(), expected);
    }
}

#[test]
fn a_limit_is_shared_by_whom_the_policy_says() {
    use RateLimitBy::{ClientIdentity, Target};
    let (cart, http, rule) = (name("cart"), RouteKind::Http, Arc::from("slow"));
    let port = |port| RateTarget::Service { name: &cart, port };
    let of_route = |rule| RateTarget::Route {
        kind: http,
        name: &cart,
        rule,
    };
    let route = |rule: Option<&str>| TrafficPolicyTarget::Route {
        kind: http,
        name: "cart".into(),
        rule: rule.map(Arc::from),
    };
    let (ann, bob) = (client("ann"), client("bob"));
    for (what, target, by, first, second, is_shared) in [
        (
            "by target",
            service(None),
            Target,
            (port(80), &ann),
            (port(80), &bob),
            true,
        ),
        (
            "by identity",
            service(None),
            ClientIdentity,
            (port(80), &ann),
            (port(80), &bob),
            false,
        ),
        (
            "the same",
            service(None),
            ClientIdentity,
            (port(80), &ann),
            (port(80), &ann),
            true,
        ),
        (
            "ports of all",
            service(None),
            Target,
            (port(80), &ann),
            (port(81), &ann),
            true,
        ),
        (
            "single ports",
            service(Some("a")),
            Target,
            (port(80), &ann),
            (port(81), &ann),
            false,
        ),
        (
            "a route",
            route(None),
            Target,
            (of_route(None), &ann),
            (of_route(Some(&rule)), &ann),
            true,
        ),
        (
            "a rule",
            route(Some("slow")),
            Target,
            (of_route(None), &ann),
            (of_route(Some(&rule)), &ann),
            false,
        ),
        (
            "of one name",
            service(None),
            Target,
            (port(80), &ann),
            (of_route(None), &ann),
            false,
        ),
    ] {
        let limits = RateLimits::default();
        let policy = policy(vec![target], limit(1, SECOND, 1, by));
        let now = Instant::now();
        let admit = |(target, client)| limits.admit(target, &policy, Some(client), now).is_ok();
        assert!(admit(first), "{what}");
        assert_eq!(admit(second), !is_shared, "{what}");
    }
}

#[test]
fn another_limit_begins_anew_and_what_nobody_limits_any_more_is_forgotten() {
    let limits = RateLimits::default();
    let (cart, now) = (name("cart"), Instant::now());
    let target = RateTarget::Service {
        name: &cart,
        port: 80,
    };
    let slow = policy(
        vec![service(None)],
        limit(1, SECOND, 1, RateLimitBy::Target),
    );
    let slower = policy(
        vec![service(None)],
        limit(1, SECOND * 2, 1, RateLimitBy::Target),
    );
    assert!(limits.admit(target, &slow, None, now).is_ok());
    assert!(limits.admit(target, &slow, None, now).is_err());
    assert!(limits.admit(target, &slower, None, now).is_ok());
    assert!(limits.admit(target, &slower, None, now + SECOND).is_err());
    limits.retain(|shared| shared.target() != (None, &cart));
    assert_eq!(limits.len(), 0);
}

#[test]
fn more_clients_than_there_is_room_for_share_a_bucket_until_others_are_full_again() {
    let rate = limit(1, SECOND * 10, 1, RateLimitBy::ClientIdentity);
    let (mut limiter, start) = (Limiter::new(rate), Instant::now());
    for index in 0..MAX_CLIENTS {
        let own = client(&format!("c{index}"));
        limiter.admit(Some(&own), start).unwrap();
    }
    let (ann, bob) = (client("ann"), client("bob"));
    assert!(limiter.admit(Some(&ann), start).is_ok());
    assert!(limiter.admit(Some(&bob), start).is_err());
    assert_eq!(limiter.clients.len(), MAX_CLIENTS);
    // Ten seconds later all buckets are full, and forgotten.
    let later = start + SECOND * 10;
    assert!(limiter.admit(Some(&ann), later).is_ok());
    assert!(limiter.admit(Some(&bob), later).is_ok());
    assert_eq!(limiter.clients.len(), 2);
}

proptest::proptest! {
    /// In whatever order requests come: never more than the burst and what the time since gave.
    #[test]
    fn no_order_of_requests_passes_more_than_the_rate(
        requests in 1u32..50,
        burst in 1u32..50,
        pauses in proptest::collection::vec(0u64..200, 1..300),
    ) {
        let rate = limit(requests, SECOND, burst, RateLimitBy::Target);
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let (mut at, mut passed) = (0, 0u64);
        for pause in pauses {
            at += pause;
            let now = start + Duration::from_millis(at);
            match bucket.take(&rate, now) {
                Ok(()) => passed += 1,
                // Who waits as long as told passes.
                Err(limited) => {
                    let mut copy = bucket;
                    proptest::prop_assert!(copy.take(&rate, now + limited.retry_after).is_ok());
                }
            }
            // The price of one is rounded down to nanoseconds.
            let most = u64::from(burst) + (at * u64::from(requests) + 1) / 1_000;
            proptest::prop_assert!(passed <= most, "{passed} of {most}");
        }
    }
}
