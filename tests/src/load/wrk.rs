//! wrk as generator.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::{Latency, LoadResult, Point, run_tool, whole_seconds};
use crate::{Error, Place, Result};

/// Tells the result as one line of JSON: wrk's own report rounds, and stops at p99.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local points = {}
  for _, percent in ipairs({1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99}) do
    points[#points + 1] = string.format("[%s,%s]", percent / 100, latency:percentile(percent))
  end
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"bytes":%d,"duration":%d,"connect":%d,"read":%d,"write":%d,' ..
    '"status":%d,"timeout":%d,"max":%s,"latency":[%s]}\n',
    summary.requests, summary.bytes, summary.duration, e.connect, e.read, e.write,
    e.status, e.timeout, latency.max, table.concat(points, ",")))
end
"#;
/// How wrk begins to say that nobody is there, after which it ends.
const NOBODY: &str = "unable to connect";

/// What the script writes; times in microseconds.
#[derive(Deserialize)]
struct Told {
    requests: u64,
    bytes: u64,
    duration: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
    max: f64,
    latency: Vec<(f64, f64)>,
}

/// Runs it to its end; with `keep_alive`, connections are used again.
pub(super) fn run(
    place: &Place,
    target: SocketAddr,
    connections: usize,
    keep_alive: bool,
    time: Duration,
) -> Result<LoadResult> {
    let mut script = NamedTempFile::new().map_err(Error::io("make a file for wrk's script"))?;
    let written = script.write_all(SCRIPT.as_bytes());
    written.map_err(Error::path("write", script.path()))?;
    let seconds = whole_seconds(time);
    let mut arguments = vec!["--threads=1".to_owned(), format!("--duration={seconds}s")];
    arguments.push(format!("--connections={connections}"));
    arguments.push(format!("--script={}", script.path().display()));
    if !keep_alive {
        arguments.push("--header=Connection: close".into());
    }
    arguments.push(format!("http://{target}/"));
    let time = Duration::from_secs(seconds);
    let output = run_tool(place, "wrk", "wrk", &arguments, time)?;
    // It ends with a failure where nobody is there, which is the load's result for us.
    match output.stderr.lines().find(|line| line.starts_with(NOBODY)) {
        Some(line) => Ok(nobody(line)),
        None => parse(&output.success()?),
    }
}

fn nobody(line: &str) -> LoadResult {
    LoadResult {
        errors: 1,
        first_error: Some(format!("wrk: {line}")),
        ..LoadResult::empty()
    }
}

fn parse(output: &str) -> Result<LoadResult> {
    let line = output.lines().rfind(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| Error::malformed("wrk's result", output))?;
    let told: Told =
        serde_json::from_str(line).map_err(|error| Error::malformed("wrk's result", error))?;
    let kinds = [
        ("connecting", told.connect),
        ("reading", told.read),
        ("writing", told.write),
        ("status", told.status),
        ("timeout", told.timeout),
    ];
    let failed: Vec<_> = kinds
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    Ok(LoadResult {
        // It counts answers of any status.
        requests: told.requests.saturating_sub(told.status),
        bytes: told.bytes,
        elapsed: Duration::from_micros(told.duration),
        all_requests: told.requests,
        all_bytes: told.bytes,
        unsent: 0,
        errors: kinds.iter().map(|(_, count)| count).sum(),
        first_error: (!failed.is_empty())
            .then(|| format!("wrk only counts errors: {}", failed.join(", "))),
        latency: (told.requests > 0).then(|| latency(&told)),
    })
}

fn latency(told: &Told) -> Latency {
    let at = |quantile: f64| {
        let point = told.latency.iter().find(|(at, _)| *at >= quantile - 1e-9);
        point.map_or(told.max, |(_, micros)| *micros)
    };
    let mut curve: Vec<_> = told
        .latency
        .iter()
        .map(|&(quantile, micros)| Point { quantile, micros })
        .collect();
    curve.push(Point {
        quantile: 1.0,
        micros: told.max,
    });
    Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: told.max,
        curve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"Running 1s test @ http://127.0.0.1:8080/
  1 threads and 2 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   128.99us  184.14us   4.43ms   98.45%
Requests/sec:  15205.68

{"requests":16728,"bytes":2542656,"duration":1100115,"connect":0,"read":3,"write":0,"status":28,"timeout":0,"max":4431,"latency":[[0.01,39],[0.5,113],[0.9,150],[0.99,580],[0.999,3378]]}
"#;

    #[test]
    fn its_result_is_read() {
        let result = parse(OUTPUT).unwrap();
        assert_eq!(result.requests, 16_700);
        assert_eq!(result.bytes, 2_542_656);
        assert_eq!(result.elapsed, Duration::from_micros(1_100_115));
        assert_eq!(result.errors, 31);
        let error = result.first_error.unwrap();
        assert_eq!(error, "wrk only counts errors: reading 3, status 28");
        let latency = result.latency.unwrap();
        let told = [latency.p50, latency.p90, latency.p99, latency.p999];
        assert!((told.iter().sum::<f64>() - 4221.0).abs() < 1e-6, "{told:?}");
        assert!((latency.max - 4431.0).abs() < 1e-6);
        assert_eq!(latency.curve.len(), 6);
    }

    #[test]
    fn anything_else_is_refused() {
        for output in ["", "Running 1s test\n", "{\"requests\":1}\n"] {
            let error = parse(output).unwrap_err().to_string();
            assert!(error.starts_with("wrk's result can't be read"), "{error}");
        }
    }
}
