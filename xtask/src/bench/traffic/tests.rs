use lab::{Latency, Point};

use super::*;

const ROUND_TRIP: Load = Load::RoundTrip { connections: 1 };
const BULK: Load = Load::Bulk { streams: 1 };
const CONNECT: Load = Load::Connect { clients: 8 };
const FIXED_RATE: Load = Load::FixedRate {
    requests_per_second: 1000,
    connections: 4,
};

fn told(requests: u64) -> LoadResult {
    LoadResult {
        requests,
        bytes: 250_000_000,
        elapsed: Duration::from_secs(2),
        all_requests: requests + requests / 4,
        all_bytes: 500_000_000,
        unsent: 0,
        errors: 0,
        first_error: None,
        latency: Some(Latency {
            p50: 50.0,
            p90: 90.0,
            p99: 99.0,
            p999: 999.0,
            max: 1000.0,
            curve: vec![Point {
                quantile: 0.5,
                micros: 50.0,
            }],
        }),
    }
}

fn used() -> Used {
    Used {
        busy: Duration::from_secs(3),
        stolen: Duration::ZERO,
        all: Duration::from_secs(4),
    }
}

#[test]
fn figures_are_those_that_the_load_is_for_and_cpu_counts_the_warm_up() {
    let latency = ["p50 50 us", "p90 90 us", "p99 99 us", "p999 999 us"];
    let table = [
        (BULK, 0, vec!["throughput 1 Gbit/s", "cpu 6 s/GB"]),
        (
            CONNECT,
            2000,
            vec!["cpu 1200 us/request", "requests 1000 1/s"],
        ),
        (
            ROUND_TRIP,
            2000,
            [&["cpu 1200 us/request", "requests 1000 1/s"], &latency[..]].concat(),
        ),
        (
            FIXED_RATE,
            2000,
            [&["cpu 1200 us/request"], &latency[..]].concat(),
        ),
        // One request lies beyond p99.9: it says nothing.
        (
            FIXED_RATE,
            1000,
            [&["cpu 2400 us/request"], &latency[..3]].concat(),
        ),
    ];
    for (load, requests, expected) in table {
        let figures: Vec<_> = figures(&load, &told(requests), &used())
            .iter()
            .map(|figure| {
                format!(
                    "{} {} {}",
                    figure.metric.name(),
                    figure.value,
                    figure.unit.name()
                )
            })
            .collect();
        assert_eq!(figures, expected, "{load:?}");
    }
}

#[test]
fn a_load_that_failed_is_no_measurement() {
    let failed = |requests, errors| LoadResult {
        errors,
        first_error: Some("reset".to_owned()),
        ..told(requests)
    };
    let empty = LoadResult {
        bytes: 0,
        ..told(0)
    };
    let table = [
        (ROUND_TRIP, told(1), None),
        (ROUND_TRIP, failed(2000, 2), None),
        (
            ROUND_TRIP,
            failed(2000, 3),
            Some("3 of 2003 requests failed: reset"),
        ),
        (
            CONNECT,
            told(0),
            Some("no request was answered: no error is known"),
        ),
        (BULK, told(0), None),
        (BULK, failed(0, 1), Some("1 streams failed: reset")),
        (BULK, empty, Some("no byte arrived")),
    ];
    for (load, told, expected) in table {
        let error = judge(&load, &told).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected, "{load:?} {told:?}");
    }
}

#[test]
fn a_rate_is_sustained_if_nearly_all_requests_were_in_time() {
    let table = [
        (FIXED_RATE, 1940, None),
        (FIXED_RATE, 1900, Some("it sustained 950 requests a second")),
        (ROUND_TRIP, 1, None),
    ];
    for (load, requests, expected) in table {
        let reason = unsustained(&load, &told(requests));
        assert_eq!(reason.as_deref(), expected, "{load:?}, {requests}");
    }
}
