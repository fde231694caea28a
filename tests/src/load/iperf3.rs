//! iperf3 as generator, with a server of its own for the time of a load.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use super::{LISTEN_DEADLINE, LoadResult, run_tool, whole_seconds, with_cure};
use crate::{Error, Place, Result};

/// What doesn't count, in seconds: the least that it can leave out.
const WARM_UP: u64 = 1;

/// Runs server and client to their end.
pub(super) fn run(
    client: &Place,
    server: &Place,
    target: SocketAddr,
    streams: usize,
    time: Duration,
) -> Result<LoadResult> {
    let port = target.port().to_string();
    let mut listening = server
        .spawn(
            "iperf3",
            ["--server", "--one-off", "--forceflush", "--port", &port],
        )
        .map_err(|error| with_cure(error, "iperf3", "iperf3"))?;
    listening.await_stdout(LISTEN_DEADLINE, |line| line.contains("listening"))?;

    let seconds = whole_seconds(time);
    let arguments = [
        "--client".into(),
        target.ip().to_string(),
        format!("--port={port}"),
        format!("--parallel={streams}"),
        format!("--time={seconds}"),
        format!("--omit={WARM_UP}"),
        "--length=128K".into(),
        // As `lab-load` has it: on a wire without latency the difference is a quarter.
        "--no-delay".into(),
        "--json".into(),
    ];
    let time = Duration::from_secs(seconds + WARM_UP);
    let output = run_tool(client, "iperf3", "iperf3", &arguments, time)?;
    // It fails where the load failed, which is in what it tells.
    parse(&output.text())
}

fn parse(output: &str) -> Result<LoadResult> {
    let told: Value =
        serde_json::from_str(output).map_err(|error| Error::malformed("iperf3's result", error))?;
    if let Some(error) = told["error"].as_str() {
        return Ok(LoadResult {
            errors: 1,
            first_error: Some(format!("iperf3: {error}")),
            ..LoadResult::empty()
        });
    }
    let received = &told["end"]["sum_received"];
    let missing = |field| {
        Error::malformed(
            "iperf3's result",
            format!("no end.sum_received.{field} that can be"),
        )
    };
    let bytes = received["bytes"].as_u64().ok_or_else(|| missing("bytes"))?;
    let seconds = received["seconds"].as_f64().and_then(|seconds| {
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|time| !time.is_zero())
    });
    let elapsed = seconds.ok_or_else(|| missing("seconds"))?;
    let omitted: u64 = told["intervals"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|interval| interval["sum"]["omitted"] == true)
        .filter_map(|interval| interval["sum"]["bytes"].as_u64())
        .sum();
    Ok(LoadResult {
        bytes,
        elapsed,
        all_bytes: bytes.saturating_add(omitted),
        ..LoadResult::empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_receiver_got_is_read() {
        let output = r#"{
            "start": {"version": "iperf 3.12"},
            "intervals": [
                {"streams": [], "sum": {"bytes": 2250506240, "omitted": true}},
                {"streams": [], "sum": {"bytes": 2382888960, "omitted": false}}
            ],
            "end": {
                "sum_sent": {"seconds": 0.999022, "bytes": 2382888960},
                "sum_received": {"seconds": 1.000043, "bytes": 2385182773, "sender": true}
            }
        }"#;
        let result = parse(output).unwrap();
        assert_eq!(result.bytes, 2_385_182_773);
        assert_eq!(result.all_bytes, 2_385_182_773 + 2_250_506_240);
        assert_eq!(result.elapsed, Duration::from_micros(1_000_043));
        assert_eq!((result.errors, result.first_error), (0, None));
    }

    #[test]
    fn its_error_is_an_error_of_the_load() {
        let output = r#"{"start": {}, "end": {}, "error": "unable to connect to server"}"#;
        let result = parse(output).unwrap();
        assert_eq!((result.bytes, result.errors), (0, 1));
        let error = result.first_error.unwrap();
        assert_eq!(error, "iperf3: unable to connect to server");
    }

    #[test]
    fn anything_else_is_refused() {
        for output in [
            "",
            "{}",
            r#"{"end": {"sum_received": {"bytes": 5}}}"#,
            r#"{"end": {"sum_received": {"bytes": 5, "seconds": 0.0}}}"#,
            r#"{"end": {"sum_received": {"bytes": 5, "seconds": -1.0}}}"#,
        ] {
            let error = parse(output).unwrap_err().to_string();
            assert!(
                error.starts_with("iperf3's result can't be read"),
                "{error}"
            );
        }
    }
}
