//! Latencies, as they are told.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How finely the curve goes towards the maximum: so many points each time that the distance to it
/// halves.
const POINTS_A_HALVING: u32 = 5;

/// How long answers took, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 90 % took no longer.
    pub p90: f64,
    /// 99 % took no longer.
    pub p99: f64,
    /// 99.9 % took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// A curve of all, rising, with more points towards the maximum.
    pub curve: Vec<Point>,
}

/// A point of a latency curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The part of all requests that took no longer, 0 to 1.
    pub quantile: f64,
    /// Microseconds.
    pub micros: f64,
}

impl Latency {
    /// From nanoseconds; none if nothing was recorded.
    #[must_use]
    pub fn of_nanoseconds(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        let curve = histogram
            .iter_quantiles(POINTS_A_HALVING)
            .map(|step| Point {
                quantile: step.quantile_iterated_to(),
                micros: micros(step.value_iterated_to()),
            });
        Some(Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
            curve: curve.collect(),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a century are exact enough"
)]
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::new(3).unwrap();
        for micros in 1..=1000_u64 {
            histogram.record(micros * 1000).unwrap();
        }
        let latency = Latency::of_nanoseconds(&histogram).unwrap();
        for (told, expected) in [
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p999, 999.0),
            (latency.max, 1000.0),
        ] {
            assert!((told / expected - 1.0).abs() < 0.002, "{told} {expected}");
        }
        let curve = &latency.curve;
        assert!(curve.len() > 20, "{curve:?}");
        assert!(curve.windows(2).all(|pair| {
            pair[0].quantile <= pair[1].quantile && pair[0].micros <= pair[1].micros
        }));
        assert!((curve[curve.len() - 1].quantile - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_latency() {
        assert_eq!(Latency::of_nanoseconds(&Histogram::new(3).unwrap()), None);
    }
}
