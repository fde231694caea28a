use std::time::Duration;

use super::{
    super::{CircuitLimit, EjectionCause},
    *,
};
use crate::discovery::model::{CircuitLimits, LoadBalancing, OutlierEjection, RetryBudgetPolicy};

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        port_name: "".into(),
        address: [10, 0, 0, last].into(),
        port: 80,
        node: None,
        zone: None,
    }
}

fn backend(policy: BackendPolicy) -> Arc<BackendState> {
    let service = ObjectName {
        namespace: "shop".into(),
        name: "cart".into(),
    };
    Arc::new(BackendState::new(service, Arc::new(policy), Arc::default()))
}

fn choose(backend: &Arc<BackendState>, candidates: &[&Endpoint], now: Instant) -> Chosen {
    let choice = Choice {
        candidates,
        zone: None,
        distribution: TrafficDistribution::Any,
        hash: None,
        tried: &[],
        now,
        random: 3,
    };
    backend.choose(&choice).unwrap()
}

#[test]
fn a_request_counts_until_its_choice_is_dropped() {
    let backend = backend(BackendPolicy::default());
    let (one, two) = (endpoint(1), endpoint(2));
    let now = Instant::now();
    let first = choose(&backend, &[&one, &two], now);
    let second = choose(&backend, &[&one, &two], now);
    assert_ne!(first.address, second.address);
    let free = first.address;
    first.finished(Verdict::Success, now);
    assert_eq!(choose(&backend, &[&one, &two], now).address, free);
}

#[test]
fn an_endpoint_that_fails_is_left_out_and_comes_back() {
    let backend = backend(BackendPolicy {
        outlier_ejection: Some(OutlierEjection {
            consecutive_errors: Some(2),
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejected_percent: 50,
            success_rate: None,
        }),
        ..BackendPolicy::default()
    });
    let (one, two) = (endpoint(1), endpoint(2));
    let start = Instant::now();
    let both = [&one, &two];
    for _ in 0..2 {
        choose(&backend, &both[..1], start).finished(Verdict::ConnectFailed, start);
    }
    // The last choice had one candidate, of which one may always be ejected.
    assert_eq!(backend.ejected(start), 1);
    let taken = |second| -> BTreeSet<SocketAddr> {
        let now = start + Duration::from_secs(second);
        let busy: Vec<_> = (0..4).map(|_| choose(&backend, &both, now)).collect();
        busy.iter().map(|chosen| chosen.address).collect()
    };
    assert_eq!(taken(29), [two.socket_address()].into());
    assert_eq!(taken(30).len(), 2);
    assert_eq!(
        backend
            .counts
            .counted(ResilienceEvent::Ejected(EjectionCause::ConsecutiveErrors)),
        1
    );
    // Without the policy, nothing is remembered against anybody.
    backend.obey(&Arc::default());
    assert_eq!(backend.ejected(start), 0);
}

#[test]
fn the_zone_goes_first_where_the_policy_or_else_the_service_says_so() {
    use TrafficDistribution::{Any, PreferSameZone};
    let mut near = endpoint(1);
    near.zone = Some("a".into());
    let far = endpoint(2);
    for (zone, distribution, only_near) in [
        (None, Any, false),
        (None, PreferSameZone, true),
        (Some(ZonePreference::Prefer), Any, true),
        (Some(ZonePreference::Any), PreferSameZone, false),
    ] {
        let backend = backend(BackendPolicy {
            load_balancing: LoadBalancing {
                zone,
                ..LoadBalancing::default()
            },
            ..BackendPolicy::default()
        });
        let choice = Choice {
            candidates: &[&near, &far],
            zone: Some("a"),
            distribution,
            hash: None,
            tried: &[],
            now: Instant::now(),
            random: 1,
        };
        let busy: Vec<_> = (0..2).map(|_| backend.choose(&choice).unwrap()).collect();
        let are_near = busy
            .iter()
            .all(|chosen| chosen.address == near.socket_address());
        assert_eq!(are_near, only_near, "{zone:?} {distribution:?}");
    }
}

#[test]
fn limits_follow_the_policy_and_what_they_refuse_is_counted() {
    let limits = |max_requests| {
        Arc::new(BackendPolicy {
            circuit_breaker: CircuitLimits {
                max_requests,
                ..CircuitLimits::default()
            },
            retry_budget: RetryBudgetPolicy {
                percent: 0,
                min_per_second: 1,
            },
            ..BackendPolicy::default()
        })
    };
    let backend = backend(BackendPolicy::default());
    let now = Instant::now();
    backend.obey(&limits(1));
    let _first = backend.admit(now).unwrap();
    let overload = backend.admit(now).unwrap_err();
    assert!(
        overload.to_string().contains("circuitBreaker.maxRequests"),
        "{overload}"
    );
    backend.obey(&limits(2));
    let _second = backend.admit(now).unwrap();
    backend.may_retry(now).unwrap().finished(true);
    assert_eq!(backend.may_retry(now).unwrap_err(), BudgetSpent);
    for event in [
        ResilienceEvent::Overflowed(CircuitLimit::Requests),
        ResilienceEvent::Retried(RetryResult::Success),
        ResilienceEvent::Retried(RetryResult::BudgetSpent),
    ] {
        assert_eq!(backend.counts.counted(event), 1, "{event:?}");
    }
}
