//! The instrument of the benchmark: does it count what happens?

use std::time::Duration;

use lab::{
    Family, Generator, Lab, Latency, Load, LoadResult, LoadServer, Pod, PodSpec, Result, run_load,
};

/// Where the server listens.
const PORT: u16 = 8080;
/// A load that is only to happen.
const SHORT: Duration = Duration::from_millis(300);

struct Pair {
    _lab: Lab,
    client: Pod,
    server: Pod,
}

/// Two pods on one node, without a mesh.
fn pair() -> Result<Pair> {
    let lab = Lab::builder("load").family(Family::Dual).build()?;
    let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
    let server = lab.node("a").pod("server", PodSpec::in_namespace("shop"))?;
    Ok(Pair {
        _lab: lab,
        client,
        server,
    })
}

impl Pair {
    fn own(&self, load: &Load, time: Duration) -> Result<LoadResult> {
        run_load(
            &self.client,
            Generator::Own,
            self.server.at(PORT),
            load,
            time,
        )
    }
}

fn latency(result: &LoadResult) -> &Latency {
    result.latency.as_ref().expect("something was answered")
}

#[test]
fn every_load_works_with_both_families() -> Result<()> {
    let pair = pair()?;
    let _server = LoadServer::start(&pair.server, PORT)?;
    for at in pair.server.all_at(PORT) {
        for load in [
            Load::Bulk { streams: 1 },
            Load::Bulk { streams: 3 },
            Load::RoundTrip { connections: 1 },
            Load::RoundTrip { connections: 7 },
            Load::FixedRate {
                requests_per_second: 300,
                connections: 3,
            },
            Load::Connect { clients: 3 },
        ] {
            let result = run_load(&pair.client, Generator::Own, at, &load, SHORT)?;
            assert_eq!(result.first_error, None, "{at} {load:?}");
            assert!(result.bytes > 0, "{at} {load:?}: {result:?}");
            assert!(result.all_bytes > result.bytes, "{at} {load:?}: {result:?}");
            if !matches!(load, Load::Bulk { .. }) {
                let curve = &latency(&result).curve;
                assert!(curve.len() > 10, "{at} {load:?}: {curve:?}");
                // The body and a head.
                let each = result.bytes / result.requests;
                assert!((1024..1200).contains(&each), "{at} {load:?}: {each}");
            }
        }
    }
    Ok(())
}

#[test]
fn latency_counts_from_when_a_request_was_due() -> Result<()> {
    let pair = pair()?;
    // Once, amid what counts, the server doesn't answer for 300 ms.
    let stall = ["--threads=1", "--stall-ms=300", "--stall-after=400"];
    let _server = LoadServer::start_with(&pair.server, PORT, &stall)?;
    let load = Load::FixedRate {
        requests_per_second: 500,
        connections: 4,
    };
    let result = pair.own(&load, Duration::from_millis(1500))?;
    assert_eq!(result.first_error, None);
    // All that were due are accounted for.
    let due = result.requests + result.unsent;
    assert!((749..=751).contains(&due), "{due}");
    // Only four requests were sent when the server stalled, but those of 300 ms were due: 20 % of
    // all had to wait, 3 % longer than 250 ms.
    let latency = latency(&result);
    assert!(latency.p90 > 100_000.0, "{latency:?}");
    assert!(latency.p99 > 250_000.0, "{latency:?}");
    assert!(latency.max > 290_000.0, "{latency:?}");
    Ok(())
}

#[test]
fn requests_that_could_not_be_sent_in_time_are_told() -> Result<()> {
    let pair = pair()?;
    let stall = ["--threads=1", "--stall-ms=20000", "--stall-after=100"];
    let _server = LoadServer::start_with(&pair.server, PORT, &stall)?;
    let load = Load::FixedRate {
        requests_per_second: 1000,
        connections: 2,
    };
    let result = pair.own(&load, Duration::from_secs(1))?;
    // 1,100 were due, warm-up included; 100 were answered, and two wait for ever.
    assert_eq!((result.all_requests, result.errors), (100, 2), "{result:?}");
    assert!((997..=999).contains(&result.unsent), "{}", result.unsent);
    let error = result.first_error.expect("there were errors");
    assert!(error.contains("no answer by"), "{error}");
    Ok(())
}

#[test]
fn failures_are_counted_and_the_first_is_told() -> Result<()> {
    let pair = pair()?;
    let loads = [
        Load::RoundTrip { connections: 2 },
        Load::Connect { clients: 2 },
        Load::FixedRate {
            requests_per_second: 100,
            connections: 2,
        },
    ];
    let check = |load: &Load, expected: &str| -> Result<()> {
        let result = pair.own(load, SHORT)?;
        assert_eq!(result.requests, 0, "{load:?}");
        // Connections rest after a failure: a load never becomes a flood.
        assert!((2..500).contains(&result.errors), "{load:?}: {result:?}");
        let error = result.first_error.expect("there were errors");
        assert!(error.contains(expected), "{load:?}: {error}");
        Ok(())
    };
    for load in &loads {
        check(load, "connect to")?;
        check(load, "refused")?;
    }
    check(&Load::Bulk { streams: 2 }, "refused")?;
    let listen = format!("[::]:{PORT}");
    let _resets = pair.server.peer_server([
        "reset-server",
        "--listen",
        &listen,
        "--dual-stack",
        "--after=1",
    ])?;
    for load in &loads {
        check(load, "reset")?;
    }
    Ok(())
}

#[test]
fn other_generators_tell_results_and_failures() -> Result<()> {
    let pair = pair()?;
    let at = pair.server.at(PORT);
    let round_trip = Load::RoundTrip { connections: 4 };
    let fixed_rate = Load::FixedRate {
        requests_per_second: 200,
        connections: 4,
    };
    let connect = Load::Connect { clients: 4 };
    let cases = [
        (Generator::Wrk, &round_trip),
        (Generator::Wrk, &connect),
        (Generator::H2load, &round_trip),
        (Generator::H2load, &fixed_rate),
    ];
    for (generator, load) in cases {
        let result = run_load(&pair.client, generator, at, load, SHORT)?;
        assert!(result.errors > 0, "{generator:?} {load:?}: {result:?}");
        assert!(result.first_error.is_some(), "{generator:?} {load:?}");
    }
    let server = LoadServer::start(&pair.server, PORT)?;
    for (generator, load) in cases {
        let result = server.run(&pair.client, generator, at, load, SHORT)?;
        assert!(result.requests > 10, "{generator:?} {load:?}: {result:?}");
        assert_eq!(result.first_error, None, "{generator:?} {load:?}");
        assert!(latency(&result).p50 > 1.0, "{generator:?} {load:?}");
    }
    let bulk = Load::Bulk { streams: 2 };
    let error = run_load(&pair.client, Generator::Wrk, at, &bulk, SHORT);
    let error = error.expect_err("wrk has no such load").to_string();
    assert!(error.contains("wrk can RoundTrip and Connect"), "{error}");
    Ok(())
}

/// A pod's own end of its veth sends at no more than `rate` (as tc(8) has it), far below what
/// generators and processors can do: what is measured then follows from the link alone.
fn narrow(pod: &Pod, rate: &str) -> Result<()> {
    let arguments = ["qdisc", "replace", "dev", "eth0", "root", "tbf"];
    let bucket = ["rate", rate, "burst", "16kb", "latency", "100ms"];
    pod.run("tc", arguments.into_iter().chain(bucket))?
        .success()?;
    Ok(())
}

/// How often two generators may be compared until they agree.
const TRIES: usize = 5;

#[test]
fn a_narrow_link_is_measured_as_others_measure_it() -> Result<()> {
    let pair = pair()?;
    let server = LoadServer::start(&pair.server, PORT)?;
    narrow(&pair.client, "50mbit")?;
    narrow(&pair.server, "10mbit")?;
    let alike = 0.9..=1.1;
    type Figure = fn(&LoadResult) -> f64;
    let requests: Figure = LoadResult::requests_per_second;
    let median: Figure = |result| latency(result).p50;
    let bits: Figure = LoadResult::gigabits_per_second;
    let many = || Load::RoundTrip { connections: 32 };
    for (load, generator, what, figure) in [
        (many(), Generator::Wrk, "requests", requests),
        (many(), Generator::Wrk, "median", median),
        (many(), Generator::H2load, "requests", requests),
        (
            Load::Connect { clients: 8 },
            Generator::Wrk,
            "requests",
            requests,
        ),
        (Load::Bulk { streams: 1 }, Generator::Iperf3, "Gbit/s", bits),
        (Load::Bulk { streams: 8 }, Generator::Iperf3, "Gbit/s", bits),
    ] {
        let measure = |generator| -> Result<f64> {
            let at = pair.server.at(PORT);
            let time = Duration::from_secs(2);
            let result = server.run(&pair.client, generator, at, &load, time)?;
            assert_eq!(result.first_error, None, "{generator:?} {load:?}");
            Ok(figure(&result))
        };
        // The link bounds it: 50 Mbit/s but for headers.
        let is_links =
            |own: f64| !matches!(load, Load::Bulk { .. }) || (0.043..=0.051).contains(&own);
        // Where one of the two is wrong, it is so each time; a machine that stops for a moment spoils one.
        let mut tries = Vec::new();
        loop {
            let (own, other) = (measure(Generator::Own)?, measure(generator)?);
            tries.push(format!("{own:.4} here, {other:.4} by {generator:?}"));
            if alike.contains(&(own / other)) && is_links(own) {
                break;
            }
            assert!(tries.len() < TRIES, "{load:?}, {what}: {tries:?}");
        }
        eprintln!("{load:?}, {what}: {tries:?}");
    }
    Ok(())
}
