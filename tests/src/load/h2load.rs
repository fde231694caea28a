//! h2load as generator, in HTTP/1.1.

use std::{fs, net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;

use super::{Latency, LoadResult, run_tool};
use crate::{Error, Place, Result};

/// The longest latency that is told as it is, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// Runs it to its end; at a fixed rate if one is given, which is divided among the connections.
pub(super) fn run(
    place: &Place,
    target: SocketAddr,
    connections: usize,
    rate: Option<u32>,
    time: Duration,
) -> Result<LoadResult> {
    let directory = tempfile::tempdir().map_err(Error::io("make a directory for h2load's log"))?;
    let log = directory.path().join("log");
    let mut arguments = vec!["--h1".to_owned(), "--threads=1".into()];
    arguments.push(format!("--clients={connections}"));
    arguments.push(format!("--duration={}ms", time.as_millis().max(1)));
    arguments.push(format!("--warm-up-time={}ms", (time / 10).as_millis()));
    arguments.push(format!("--log-file={}", log.display()));
    if let Some(rate) = rate {
        let connections = u32::try_from(connections).map_err(|error| {
            Error::Unsupported(format!("{connections} connections of h2load: {error}"))
        })?;
        let share = f64::from(rate) / f64::from(connections.max(1));
        arguments.push(format!("--rps={share}"));
    }
    arguments.push(format!("http://{target}/"));
    let output = run_tool(place, "h2load", "nghttp2-client", &arguments, time)?.success()?;
    let latencies = fs::read_to_string(&log).map_err(Error::path("read", &log))?;
    parse(&output, &latencies, time)
}

/// From its report, and its log: a line for each request that counts, which ends with its time in
/// microseconds.
fn parse(report: &str, log: &str, time: Duration) -> Result<LoadResult> {
    let requests = numbers(report, "requests:")?;
    let of = |name: &str| {
        let found = requests.iter().find(|(_, what)| what == name);
        found.map(|(number, _)| *number).ok_or_else(|| {
            Error::malformed("h2load's report", format!("no number of requests {name}"))
        })
    };
    let (done, succeeded) = (of("done")?, of("succeeded")?);
    let errors = of("failed")?;
    let mut first_error = (errors > 0).then(|| {
        let line = report.lines().find(|line| line.starts_with("requests:"));
        format!("h2load only counts errors: {}", line.unwrap_or_default())
    });
    // It counts requests only: a connection that fails is nothing to it.
    if done == 0 {
        first_error.get_or_insert_with(|| "h2load: no request was answered".into());
    }
    let bytes = traffic(report)?;
    Ok(LoadResult {
        requests: succeeded,
        bytes,
        elapsed: time,
        all_requests: succeeded,
        all_bytes: bytes,
        unsent: 0,
        errors: errors.max(u64::from(done == 0)),
        first_error,
        latency: Latency::of_nanoseconds(&histogram(log)?),
    })
}

/// The numbers of a line such as `requests: 12 total, 12 started`.
fn numbers(report: &str, begin: &str) -> Result<Vec<(u64, String)>> {
    let line = report.lines().find_map(|line| line.strip_prefix(begin));
    let line = line.ok_or_else(|| {
        Error::malformed(
            "h2load's report",
            format!("no line `{begin}` in {report:?}"),
        )
    })?;
    line.split(',')
        .map(|part| {
            let (number, what) = part.trim().split_once(' ').unwrap_or((part, ""));
            let number = number
                .parse()
                .map_err(|error| Error::malformed(format!("h2load's {part:?}"), error))?;
            Ok((number, what.to_owned()))
        })
        .collect()
}

/// The bytes of a line such as `traffic: 5.61MB (5887112) total, ...`.
fn traffic(report: &str) -> Result<u64> {
    let line = report.lines().find(|line| line.starts_with("traffic:"));
    let total = line.and_then(|line| line.split_once('(')?.1.split_once(')')?.0.parse().ok());
    total.ok_or_else(|| Error::malformed("h2load's report", "no line `traffic:` with a total"))
}

fn histogram(log: &str) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3)
        .map_err(|error| Error::malformed("h2load's log", error))?;
    for line in log.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (status, micros) = (fields.next(), fields.next());
        if !status.is_some_and(|status| status.starts_with('2')) {
            continue;
        }
        let micros: Option<u64> = micros.and_then(|text| text.parse().ok());
        let micros = micros.ok_or_else(|| Error::malformed("h2load's log", line))?;
        histogram.saturating_record(micros.saturating_mul(1000));
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "starting benchmark...

finished in 2.00s, 38731.00 req/s, 5.61MB/s
requests: 38731 total, 38731 started, 38731 done, 38729 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 38729 2xx, 0 3xx, 0 4xx, 1 5xx
traffic: 5.61MB (5887112) total, 10.08MB (10567692) headers (space savings 0.00%), 477.78KB (489245) data
                     min         max         mean         sd        +/- sd
time for request:       34us      3.63ms       101us        82us    88.95%
";
    const LOG: &str = "1795253769014210\t200\t175
1795253769014315\t200\t252
1795253769014315\t503\t10
1795253769014315\t-1\t0
1795253769014313\t200\t259
";

    #[test]
    fn its_report_and_log_are_read() {
        let time = Duration::from_secs(1);
        let result = parse(REPORT, LOG, time).unwrap();
        assert_eq!((result.requests, result.errors), (38_729, 2));
        assert_eq!((result.bytes, result.elapsed), (5_887_112, time));
        assert!(result.first_error.unwrap().contains("2 failed"));
        let latency = result.latency.unwrap();
        assert!((latency.p50 - 252.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max - 259.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_of_the_load() {
        let report = "requests: 0 total, 0 started, 0 done, 0 succeeded, 0 failed, 0 errored, \
                      0 timeout\ntraffic: 0B (0) total, 0B (0) headers";
        let result = parse(report, "", Duration::from_secs(1)).unwrap();
        assert_eq!((result.requests, result.errors), (0, 1));
        assert_eq!(result.latency, None);
        let error = result.first_error.unwrap();
        assert_eq!(error, "h2load: no request was answered");
    }

    #[test]
    fn anything_else_is_refused() {
        let requests = "requests: 1 total, 1 done, 1 succeeded, 0 failed\n";
        let traffic = "traffic: 1B (1) total\n";
        let both = format!("{requests}{traffic}");
        for (report, log) in [
            ("", ""),
            (requests, ""),
            (traffic, ""),
            (&both, "1 200 soon\n"),
            (&both, "1 200\n"),
            ("requests: many\ntraffic: 1B (1) total\n", ""),
        ] {
            let error = parse(report, log, Duration::from_secs(1)).unwrap_err();
            assert!(error.to_string().starts_with("h2load's"), "{error}");
        }
    }
}
