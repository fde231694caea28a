//! What a load has brought so far.

use std::{io, time::Duration};

use hdrhistogram::Histogram;
use lab::{Latency, LoadResult};

/// The longest latency that is told as it is, in nanoseconds; longer ones count as this.
const LONGEST: u64 = 600_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// Counters and latencies of one thread.
pub(crate) struct Tally {
    histogram: Histogram<u64>,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) all_requests: u64,
    pub(crate) all_bytes: u64,
    pub(crate) unsent: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    pub(crate) fn new() -> io::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS).map_err(io::Error::other)?;
        Ok(Self {
            histogram,
            requests: 0,
            bytes: 0,
            all_requests: 0,
            all_bytes: 0,
            unsent: 0,
            errors: 0,
            first_error: None,
        })
    }

    /// Counts an answer: its latency in nanoseconds, its length in bytes, and whether it counts or
    /// belongs to the warm-up.
    pub(crate) fn answer(&mut self, latency: u64, bytes: u64, counts: bool) {
        self.all_requests += 1;
        self.all_bytes += bytes;
        if counts {
            self.requests += 1;
            self.bytes += bytes;
            self.histogram.saturating_record(latency);
        }
    }

    /// Counts an error.
    pub(crate) fn error(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(what);
    }

    /// Adds what another thread counted.
    pub(crate) fn add(&mut self, other: Self) -> io::Result<()> {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.all_requests += other.all_requests;
        self.all_bytes += other.all_bytes;
        self.unsent += other.unsent;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.histogram
            .add(other.histogram)
            .map_err(io::Error::other)
    }

    /// The result after `elapsed` nanoseconds that count.
    pub(crate) fn result(self, elapsed: u64) -> LoadResult {
        LoadResult {
            requests: self.requests,
            bytes: self.bytes,
            elapsed: Duration::from_nanos(elapsed),
            all_requests: self.all_requests,
            all_bytes: self.all_bytes,
            unsent: self.unsent,
            errors: self.errors,
            first_error: self.first_error,
            latency: Latency::of_nanoseconds(&self.histogram),
        }
    }
}
