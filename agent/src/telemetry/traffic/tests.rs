use std::thread;

use super::*;
use crate::telemetry::fixtures::{stranger, workload};

const IDLE: Duration = Duration::from_secs(3600);

fn traffic(limit: usize) -> Traffic {
    let names = ClusterNames {
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    };
    Traffic::new(names, limit, IDLE)
}

fn of(client: &str) -> ConnectionDescription {
    ConnectionDescription {
        source: Some(workload("web", client, "node-a")),
        ..stranger()
    }
}

/// Clients and counts of connections opened.
fn opened(traffic: &Traffic, now: Instant) -> Vec<(String, f64)> {
    let families = traffic.collect(now);
    let metrics = families[0].get_metric().iter();
    let counts = metrics.map(|metric| {
        let client = metric.get_label()[1].value().to_owned();
        (client, metric.get_counter().get_value())
    });
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|a, b| a.0.cmp(&b.0));
    counts
}

#[test]
fn a_series_goes_when_it_is_idle_and_not_before() {
    let traffic = traffic(10);
    let long = traffic.open(of("long"), Arc::default(), Instant::now());
    let short = traffic.open(of("short"), Arc::default(), Instant::now());
    traffic.close(&short, ResponseFlags::None);
    drop(short);
    let both = [("long".to_owned(), 1.0), ("short".to_owned(), 1.0)];
    let now = Instant::now();
    assert_eq!(opened(&traffic, now + IDLE / 2), both);
    // Shown once more, for a scraper that comes by this seldom.
    assert_eq!(opened(&traffic, now + IDLE + IDLE), both);
    assert_eq!(opened(&traffic, now + IDLE + IDLE), both[..1]);
    traffic.close(&long, ResponseFlags::None);
    drop(long);
    assert_eq!(opened(&traffic, now + IDLE / 2), both[..1]);
    opened(&traffic, now + IDLE + IDLE);
    assert_eq!(opened(&traffic, now + IDLE + IDLE), []);
}

#[test]
fn connections_beyond_the_limit_count_as_unknown() {
    let traffic = traffic(2);
    let open = |client| traffic.open(of(client), Arc::default(), Instant::now());
    let _held: Vec<_> = ["a", "b", "c", "d", "a"].into_iter().map(open).collect();
    let counts = [("a", 2.0), ("b", 1.0), ("unknown", 2.0)];
    let counts = counts.map(|(client, count)| (client.to_owned(), count));
    assert_eq!(opened(&traffic, Instant::now()), counts);
    let families = traffic.collect(Instant::now());
    let overflowed = families[5].get_metric()[0].get_counter().get_value();
    assert_eq!(overflowed, 2.0);
}

#[test]
fn scrapes_at_once_count_no_byte_twice() {
    const BYTES: u64 = 10_000;
    let traffic = traffic(10);
    let transfer = Arc::<Transfer>::default();
    let opened = traffic.open(of("client"), transfer.clone(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..500).for_each(|_| drop(traffic.collect(Instant::now()))));
        }
        scope.spawn(|| (0..BYTES).for_each(|_| transfer.add_sent(1)));
    });
    traffic.close(&opened, ResponseFlags::None);
    let families = traffic.collect(Instant::now());
    let sent = families[2].get_metric()[0].get_counter().get_value();
    assert_eq!(sent, BYTES as f64);
}
