use std::time::Duration;

use super::*;
use crate::{
    discovery::{
        manifest::{self, Format},
        model::Endpoint,
        reduce::Reducer,
        store::{Change, Store},
    },
    telemetry::metrics::{Metrics, MetricsOptions},
};

/// A waypoint's resilience that follows a store.
struct Story {
    store: Store,
    resilience: Resilience,
    start: Instant,
}

fn cart() -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: "cart".into(),
    }
}

fn service(addresses: &[u8]) -> String {
    let endpoints = addresses
        .iter()
        .map(|last| format!("{{addresses: [10.0.0.{last}]}}"));
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop}}, \
         spec: {{ports: [{{name: http, port: 80}}]}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: cart-1, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}, \
         ports: [{{name: http, port: 8080}}], endpoints: [{endpoints}]}}\n"
    )
}

fn policy(spec: &str) -> String {
    format!(
        "---\n{{apiVersion: ambit.dev/v1alpha1, kind: TrafficPolicy, \
         metadata: {{name: cart, namespace: shop}}, \
         spec: {{targetRefs: [{{kind: Service, name: cart}}], {spec}}}}}\n"
    )
}

impl Story {
    fn new() -> Self {
        let metrics = Metrics::new(MetricsOptions::default()).unwrap();
        Self {
            store: Store::default(),
            resilience: Resilience::new(ResilienceMetrics::register(&metrics).unwrap()),
            start: Instant::now(),
        }
    }

    fn apply(&self, second: u64, yaml: &str) {
        let mut updates = self.store.subscribe();
        let parsed = manifest::parse(yaml, Format::Yaml, &mut Reducer::new("cluster.local"));
        let parsed = parsed.unwrap();
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        let changes = parsed.objects.into_iter();
        self.store
            .apply(changes.map(|object| Change::Upsert(object.object)));
        self.follow(&mut updates, second);
    }

    fn remove(&self, second: u64, key: &str, kind: crate::discovery::facts::Kind) {
        let mut updates = self.store.subscribe();
        let name = ObjectName {
            namespace: "shop".into(),
            name: key.into(),
        };
        let key = crate::discovery::facts::ObjectKey { kind, name };
        self.store.apply([Change::Remove(key)]);
        self.follow(&mut updates, second);
    }

    fn follow(&self, updates: &mut tokio::sync::broadcast::Receiver<Arc<Update>>, second: u64) {
        let update = updates.try_recv().unwrap();
        self.resilience
            .apply(&update, self.start + Duration::from_secs(second));
    }

    fn backend(&self) -> Arc<BackendState> {
        let snapshot = self.store.snapshot();
        let policy = snapshot.traffic_policy_of_service(&cart(), 80);
        self.resilience.backend(&cart(), 80, policy)
    }

    fn choose(&self, second: u64, random: u64) -> Chosen {
        let snapshot = self.store.snapshot();
        let service = snapshot.service(&cart()).unwrap();
        let candidates: Vec<&Endpoint> = service.of_port(80).collect();
        let choice = Choice {
            candidates: &candidates,
            zone: None,
            distribution: service.traffic_distribution,
            hash: None,
            tried: &[],
            now: self.start + Duration::from_secs(second),
            random,
        };
        self.backend().choose(&choice).unwrap()
    }

    /// Which endpoint each of 1,000 requests goes to that have no other beside them.
    fn taken(&self, second: u64) -> Vec<(u8, u32)> {
        let mut taken = std::collections::BTreeMap::new();
        for random in 0..1_000 {
            let chosen = self.choose(second, random);
            let std::net::IpAddr::V4(address) = chosen.address.ip() else {
                unreachable!()
            };
            *taken.entry(address.octets()[3]).or_default() += 1;
        }
        taken.into_iter().collect()
    }
}

#[test]
fn ejected_endpoints_are_counted_while_a_policy_leaves_them_out() {
    let story = Story::new();
    story.apply(0, &service(&[1, 2]));
    let _ = story.backend();
    let at = |second| {
        story
            .resilience
            .ejected(story.start + Duration::from_secs(second))
    };
    assert_eq!(at(1), [], "nobody is left out without a policy");
    let ejection = "outlierEjection: {consecutiveErrors: 1, baseEjection: 30s}";
    story.apply(1, &policy(ejection));
    assert_eq!(story.taken(1).len(), 2);
    assert_eq!(at(2), [(cart(), 0)]);
    let chosen = story.choose(0, 0);
    chosen.finished(Verdict::Error, story.start + Duration::from_secs(2));
    assert_eq!(at(3), [(cart(), 1)]);
    assert_eq!(at(40), [(cart(), 0)]);
}

#[test]
fn a_backend_has_one_state_until_its_service_goes() {
    use crate::discovery::facts::Kind;
    let story = Story::new();
    story.apply(0, &service(&[1]));
    let first = story.backend();
    assert!(Arc::ptr_eq(&first, &story.backend()));
    assert!(!Arc::ptr_eq(
        &first,
        &story.resilience.backend(&cart(), 81, None)
    ));
    // A policy that comes changes what the state goes by, not the state.
    story.apply(1, &policy("circuitBreaker: {maxRequests: 1}"));
    assert!(Arc::ptr_eq(&first, &story.backend()));
    assert_eq!(first.policy().circuit_breaker.max_requests, 1);
    story.remove(2, "cart", Kind::TrafficPolicy);
    story.backend();
    assert_eq!(*first.policy(), BackendPolicy::default());
    story.remove(3, "cart", Kind::Service);
    assert!(!Arc::ptr_eq(&first, &story.backend()));
}

#[test]
fn an_endpoint_that_comes_starts_slowly_where_it_is_to() {
    let story = Story::new();
    let slow = policy("loadBalancing: {slowStart: {window: 60s}}");
    story.apply(0, &(service(&[1, 2]) + &slow));
    let equal = |taken: Vec<(u8, u32)>| {
        let share = 1_000 / u32::try_from(taken.len()).unwrap();
        taken.iter().all(|(_, count)| count.abs_diff(share) < 100)
    };
    assert!(equal(story.taken(0)));
    story.apply(10, &service(&[1, 2, 3]));
    let [_, _, (3, few)] = story.taken(10)[..] else {
        panic!("an endpoint has none")
    };
    assert!((10..150).contains(&few), "{few}");
    assert!(equal(story.taken(70)));
}

#[test]
fn a_rate_limit_holds_for_as_long_as_there_is_a_policy_with_one() {
    use crate::discovery::facts::Kind;
    let story = Story::new();
    story.apply(
        0,
        &(service(&[1]) + &policy("rateLimit: {requests: 1, per: 1h}")),
    );
    let admit = || {
        let snapshot = story.store.snapshot();
        let policy = snapshot.traffic_policy_of_service(&cart(), 80).unwrap();
        let cart = cart();
        let target = RateTarget::Service {
            name: &cart,
            port: 80,
        };
        story
            .resilience
            .within_rate(target, policy, &cart, None, story.start)
    };
    assert!(admit().is_ok());
    assert_eq!(admit().unwrap_err().seconds(), 3_600);
    let counts = story.resilience.metrics.of(&cart());
    assert_eq!(counts.counted(ResilienceEvent::RateLimited), 1);
    story.apply(1, &policy("retryBudget: {percent: 1}"));
    assert_eq!(story.resilience.rate_limits.len(), 0);
    story.apply(2, &policy("rateLimit: {requests: 1, per: 1h}"));
    assert!(admit().is_ok());
    story.remove(3, "cart", Kind::TrafficPolicy);
    assert_eq!(story.resilience.rate_limits.len(), 0);
}
