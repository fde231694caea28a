use std::time::Duration;

use super::*;
use crate::discovery::model::{
    BackendPolicy, CircuitLimits, ConnectionPool, HashCookie, HashKey, LoadBalancing,
    OutlierEjection, RateLimit, RateLimitBy, RetryBudgetPolicy, Strategy, SuccessRate,
    TrafficPolicy as Checked, ZonePreference,
};

const TARGET: &str = "targetRefs: [{kind: Service, name: cart}]";

/// A policy `shop/p`, from the text of its spec.
fn policy(spec: &str) -> Result<Checked, String> {
    let yaml = format!("{{metadata: {{namespace: shop, name: p}}, spec: {{{spec}}}}}");
    let policy: TrafficPolicy = serde_norway::from_str(&yaml).map_err(|error| error.to_string())?;
    reducer()
        .traffic_policy(&policy)
        .map_err(|error| error.to_string())
}

fn backend(spec: &str) -> BackendPolicy {
    let policy = policy(&format!("{TARGET}, {spec}")).unwrap_or_else(|it| panic!("{spec}: {it}"));
    BackendPolicy::clone(&policy.backend)
}

#[test]
fn a_policy_with_targets_alone_changes_nothing() {
    let policy = policy(
        "targetRefs: [{kind: Service, name: cart, sectionName: http}, \
         {group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart.example}, \
         {kind: GRPCRoute, name: cart, sectionName: slow}]",
    )
    .unwrap();
    let targets = policy.targets.iter().map(ToString::to_string);
    assert_eq!(
        targets.collect::<Vec<_>>(),
        [
            "port http of Service cart",
            "HTTPRoute cart.example",
            "rule slow of GRPCRoute cart"
        ]
    );
    assert_eq!(*policy.backend, BackendPolicy::default());
    assert_eq!((policy.rate_limit, policy.fault), (None, None));
}

#[test]
fn parts_have_defaults() {
    let seconds = Duration::from_secs;
    let ejection = OutlierEjection {
        consecutive_errors: Some(5),
        interval: seconds(10),
        base_ejection: seconds(30),
        max_ejected_percent: 50,
        success_rate: None,
    };
    let default = BackendPolicy::default;
    for (spec, expected) in [
        (
            "loadBalancing: {}, circuitBreaker: {}, retryBudget: {}, connectionPool: {}",
            default(),
        ),
        (
            "outlierEjection: {}",
            BackendPolicy {
                outlier_ejection: Some(ejection),
                ..default()
            },
        ),
        (
            "outlierEjection: {consecutiveErrors: 0, successRate: {}}",
            BackendPolicy {
                outlier_ejection: Some(OutlierEjection {
                    consecutive_errors: None,
                    success_rate: Some(SuccessRate {
                        minimum_hosts: 5,
                        request_volume: 100,
                        deviation_thousandths: 1_900,
                    }),
                    ..ejection
                }),
                ..default()
            },
        ),
    ] {
        assert_eq!(backend(spec), expected, "{spec}");
    }
    let limited = policy(&format!("{TARGET}, rateLimit: {{requests: 7}}")).unwrap();
    let expected = RateLimit {
        requests: 7,
        per: seconds(1),
        burst: 7,
        by: RateLimitBy::Target,
    };
    assert_eq!(limited.rate_limit, Some(expected));
}

#[test]
fn every_field_is_kept() {
    let hash = |key| LoadBalancing {
        strategy: Strategy::ConsistentHash(key),
        ..LoadBalancing::default()
    };
    let cookie = HashCookie {
        name: "side".into(),
        ttl: Some(Duration::from_secs(5_400)),
        path: "/a".into(),
    };
    for (spec, expected) in [
        (
            "{type: RoundRobin, zone: Prefer, slowStart: {window: 1m30s}}",
            LoadBalancing {
                strategy: Strategy::RoundRobin,
                zone: Some(ZonePreference::Prefer),
                slow_start: Some(Duration::from_secs(90)),
            },
        ),
        (
            "{type: ConsistentHash, consistentHash: {header: X-User}}",
            hash(HashKey::Header(http::HeaderName::from_static("x-user"))),
        ),
        (
            "{type: ConsistentHash, consistentHash: {cookie: {name: side, ttl: 1h30m, path: /a}}}",
            hash(HashKey::Cookie(cookie)),
        ),
        (
            "{type: ConsistentHash, consistentHash: {sourceAddress: true}}",
            hash(HashKey::SourceAddress),
        ),
    ] {
        let found = backend(&format!("loadBalancing: {spec}"));
        assert_eq!(found.load_balancing, expected, "{spec}");
    }
    let all = backend(
        "circuitBreaker: {maxConnections: 1, maxPendingRequests: 2, maxRequests: 3}, \
         retryBudget: {percent: 4, minPerSecond: 5}, \
         connectionPool: {maxRequestsPerConnection: 6, idleTimeout: 7s, maxStreamsPerConnection: 8}",
    );
    let expected = BackendPolicy {
        circuit_breaker: CircuitLimits {
            max_connections: 1,
            max_pending_requests: 2,
            max_requests: 3,
        },
        retry_budget: RetryBudgetPolicy {
            percent: 4,
            min_per_second: 5,
        },
        connection_pool: ConnectionPool {
            max_requests_per_connection: Some(6),
            idle_timeout: Duration::from_secs(7),
            max_streams_per_connection: 8,
        },
        ..BackendPolicy::default()
    };
    assert_eq!(all, expected);
    let fault = policy(
        "targetRefs: [{kind: HTTPRoute, name: cart}], fault: {\
         delay: {duration: 250ms, percentage: 10}, \
         abort: {status: 503, grpcStatus: 14, headers: [{name: X-Test, value: chaos}]}}",
    );
    let fault = fault.unwrap().fault.unwrap();
    let (delay, abort) = (fault.delay.unwrap(), fault.abort.unwrap());
    assert_eq!(
        (delay.duration, delay.applies.percentage),
        (Duration::from_millis(250), 10)
    );
    assert_eq!(
        (abort.status, abort.grpc_status, abort.applies.percentage),
        (503, Some(14), 100)
    );
    assert_eq!(
        abort.applies.headers,
        [("x-test".parse().unwrap(), "chaos".parse().unwrap())]
    );
}

#[test]
fn what_cant_be_is_refused_with_its_field() {
    let limit = "rateLimit: {requests: 1}";
    for (spec, expected) in [
        (limit.to_owned(), "spec.targetRefs: is empty"),
        (
            "targetRefs: [{kind: Pod, name: a}]".to_owned(),
            "spec.targetRefs[0].kind: \"Pod\" is not \"Service\"",
        ),
        (
            "targetRefs: [{group: apps, kind: Service, name: a}]".to_owned(),
            "spec.targetRefs[0].group: \"apps\" is not the group of Service, \"\"",
        ),
        (
            "targetRefs: [{kind: Service, name: A}]".to_owned(),
            "spec.targetRefs[0].name: \"A\" is not",
        ),
        (
            format!("{TARGET}, circuitBreakers: {{}}"),
            "unknown field `circuitBreakers`",
        ),
        (
            format!("{TARGET}, loadBalancing: {{type: Random}}"),
            "unknown variant `Random`",
        ),
        (
            "targetRefs: [{kind: HTTPRoute, name: a}], retryBudget: {}".to_owned(),
            "spec.retryBudget: isn't for routes, and HTTPRoute a is one of the targets",
        ),
    ] {
        let error = policy(&spec).unwrap_err();
        assert!(error.contains(expected), "{spec}: {error}");
    }
    for (spec, expected) in [
        (
            "loadBalancing: {type: ConsistentHash}",
            "loadBalancing.consistentHash: is missing",
        ),
        (
            "loadBalancing: {consistentHash: {header: a}}",
            "loadBalancing.consistentHash: has no effect",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {header: a, sourceAddress: true}}",
            "loadBalancing.consistentHash: must have one of",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {sourceAddress: false}}",
            "loadBalancing.consistentHash: must have one of",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {header: 'a b'}}",
            "loadBalancing.consistentHash.header: \"a b\" is not a header's name",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {cookie: {name: 'a;b'}}}",
            "loadBalancing.consistentHash.cookie.name",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {cookie: {name: a, path: '/;x'}}}",
            "loadBalancing.consistentHash.cookie.path",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {cookie: {name: a, ttl: 0s}}}",
            "loadBalancing.consistentHash.cookie.ttl",
        ),
        (
            "loadBalancing: {type: ConsistentHash, consistentHash: {header: a}, slowStart: {window: 3s}}",
            "loadBalancing.slowStart: isn't possible",
        ),
        (
            "loadBalancing: {slowStart: {window: 2h}}",
            "loadBalancing.slowStart.window: \"2h\" is not",
        ),
        (
            "circuitBreaker: {maxRequests: 0}",
            "circuitBreaker.maxRequests: \"0\" is not a number from 1",
        ),
        (
            "circuitBreaker: {maxConnections: 1000001}",
            "circuitBreaker.maxConnections",
        ),
        (
            "circuitBreaker: {maxPendingRequests: -1}",
            "circuitBreaker.maxPendingRequests",
        ),
        (
            "outlierEjection: {consecutiveErrors: 0}",
            "outlierEjection.consecutiveErrors: is 0",
        ),
        (
            "outlierEjection: {interval: 1ms}",
            "outlierEjection.interval: \"1ms\" is not a duration from",
        ),
        (
            "outlierEjection: {baseEjection: soon}",
            "outlierEjection.baseEjection: \"soon\" is not",
        ),
        (
            "outlierEjection: {maxEjectedPercent: 101}",
            "outlierEjection.maxEjectedPercent",
        ),
        (
            "outlierEjection: {successRate: {minimumHosts: 1}}",
            "successRate.minimumHosts",
        ),
        (
            "outlierEjection: {successRate: {requestVolume: 0}}",
            "successRate.requestVolume",
        ),
        (
            "outlierEjection: {successRate: {deviation: 0.05}}",
            "successRate.deviation: \"0.05\" is not",
        ),
        (
            "outlierEjection: {successRate: {deviation: .nan}}",
            "successRate.deviation: \"NaN\" is not",
        ),
        ("retryBudget: {percent: 101}", "retryBudget.percent"),
        (
            "retryBudget: {minPerSecond: -1}",
            "retryBudget.minPerSecond",
        ),
        ("rateLimit: {requests: 0}", "rateLimit.requests"),
        ("rateLimit: {requests: 1, per: 10ms}", "rateLimit.per"),
        ("rateLimit: {requests: 1, burst: 0}", "rateLimit.burst"),
        ("fault: {}", "fault: has neither delay nor abort"),
        ("fault: {delay: {duration: 0s}}", "fault.delay.duration"),
        (
            "fault: {delay: {duration: 1s, percentage: 101}}",
            "fault.delay.percentage",
        ),
        (
            "fault: {abort: {status: 600}}",
            "fault.abort.status: \"600\" is not an HTTP status",
        ),
        (
            "fault: {abort: {status: 503, grpcStatus: 0}}",
            "fault.abort.grpcStatus",
        ),
        (
            "fault: {abort: {status: 503, headers: [{name: '', value: a}]}}",
            "fault.abort.headers[0].name",
        ),
        (
            "connectionPool: {idleTimeout: 1ms}",
            "connectionPool.idleTimeout",
        ),
        (
            "connectionPool: {maxStreamsPerConnection: 1001}",
            "connectionPool.maxStreamsPerConnection",
        ),
        (
            "connectionPool: {maxRequestsPerConnection: 0}",
            "connectionPool.maxRequestsPerConnection",
        ),
    ] {
        let error = policy(&format!("{TARGET}, {spec}")).unwrap_err();
        assert!(error.contains(expected), "{spec}: {error}");
    }
}
