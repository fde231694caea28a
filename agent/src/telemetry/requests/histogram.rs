//! Istio's histograms.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto;

/// Upper bounds of Envoy's default histograms, which Istio's are, of milliseconds and of bytes.
pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// How many values fell between two bounds.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a value, in thousandths of the unit.
    pub(super) fn observe(&self, thousandths: u64) {
        let value = thousandths as f64 / 1e3;
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    /// How many values.
    pub(super) fn count(&self) -> u64 {
        self.classes().sum()
    }

    /// How many values each class has.
    pub(super) fn classes(&self) -> impl Iterator<Item = u64> {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// As Prometheus has it: each bucket counts all that is below its bound.
    pub(super) fn read(&self) -> proto::Histogram {
        let mut below = 0;
        let buckets = BOUNDS.iter().zip(&self.buckets).map(|(bound, bucket)| {
            below += bucket.load(Ordering::Relaxed);
            let mut read = proto::Bucket::default();
            read.set_upper_bound(*bound);
            read.set_cumulative_count(below);
            read
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        let above = self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        histogram.set_sample_count(below + above);
        histogram.set_sample_sum(self.sum.load(Ordering::Relaxed) as f64 / 1e3);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_the_first_bound_that_it_is_not_above() {
        for (thousandths, first) in [
            (0, Some(0.5)),
            (500, Some(0.5)),
            (501, Some(1.0)),
            (3_600_000_000, Some(3_600_000.0)),
            (3_600_000_001, None),
        ] {
            let histogram = Histogram::default();
            histogram.observe(thousandths);
            let read = histogram.read();
            let counts = |bucket: &&proto::Bucket| bucket.cumulative_count() > 0;
            let bucket = read.get_bucket().iter().find(counts);
            let bound = bucket.map(proto::Bucket::upper_bound);
            assert_eq!(bound, first, "{thousandths}");
            assert_eq!(read.get_sample_count(), 1);
            assert_eq!(read.get_sample_sum(), thousandths as f64 / 1e3);
        }
    }

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::default();
        for thousandths in [100, 700, 700, 4_000_000_000] {
            histogram.observe(thousandths);
        }
        let read = histogram.read();
        let counts = read
            .get_bucket()
            .iter()
            .map(proto::Bucket::cumulative_count);
        let counts: Vec<_> = counts.collect();
        assert_eq!(counts[..3], [1, 3, 3]);
        assert_eq!(counts.last(), Some(&3));
        assert_eq!(read.get_sample_count(), 4);
        assert_eq!(histogram.count(), 4);
    }
}
