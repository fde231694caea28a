//! Medians, ratios and lines: what many rounds say together.
//!
//! Rounds are few and their noise has a long tail to one side (another process woke up), so
//! everything rests on order statistics: a mean and its deviation would follow the worst round.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::measurement::{BASELINE, Measurement, Metric, Placement, Sample, Unit};

/// How many pods memory is extrapolated to.
pub(super) const MANY_PODS: u32 = 500;

/// Any number would do; a fixed one makes the same samples give the same report.
const SEED: u64 = 500;

/// So many that the ends of a confidence interval don't depend on the seed to two digits.
const RESAMPLES: usize = 2000;

/// All that the samples say: each figure, its ratio to mode `none`, and memory at 500 pods.
///
/// A ratio pairs what was measured in the same round, since the machine's mood changes more
/// slowly than that. There is none where the baseline is 0 or wasn't measured.
pub(super) fn measurements(samples: &[Sample]) -> Vec<Measurement> {
    let measured = series(samples.iter().filter(|sample| sample.value.is_finite()));
    let extrapolated = series(&extrapolated(&measured));
    let mut all = Vec::new();
    for (key, rounds) in &measured {
        all.push(key.measurement(spread(&rounds.values()), rounds, false));
        all.extend(ratio(key, rounds, &measured));
    }
    for (key, rounds) in &extrapolated {
        all.push(key.measurement(spread(&rounds.values()), rounds, true));
    }
    all
}

/// The share `quantile` (0 to 1) of `sorted` lies below it; between two values it is on the
/// straight line between them. Not a number if there is no value.
pub(super) fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let position = quantile.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and the last index"
    )]
    let below = position as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    // Never outside of the two, as `low + (high - low) * x` could be by rounding.
    let between = low + (high - low) * (position - below as f64);
    between.clamp(low, high)
}

/// The middle of `values`; not a number if there is none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

/// A straight line by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    intercept: f64,
    slope: f64,
}

impl Line {
    /// The line through `points` (x, y); none unless two of them differ in x.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Line> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let common: f64 = points
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum();
        if spread > 0.0 {
            let slope = common / spread;
            let intercept = y - slope * x;
            Some(Line { intercept, slope })
        } else {
            None
        }
    }

    /// Its height at `x`.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// What a figure is of. Its order is that of the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    scenario: String,
    placement: Option<Placement>,
    metric: Metric,
    unit: Unit,
    pods: Option<u32>,
    mode: String,
}

/// Values by round. Several of one round are one: their median.
#[derive(Debug, Default)]
struct Rounds(BTreeMap<u32, Vec<f64>>);

/// Middle and ends.
struct Spread {
    low: f64,
    value: f64,
    high: f64,
}

impl Key {
    fn measurement(&self, spread: Spread, rounds: &Rounds, extrapolated: bool) -> Measurement {
        Measurement {
            scenario: self.scenario.clone(),
            mode: self.mode.clone(),
            placement: self.placement,
            metric: self.metric,
            unit: self.unit,
            value: spread.value,
            low: spread.low,
            high: spread.high,
            rounds: u32::try_from(rounds.0.len()).unwrap_or(u32::MAX),
            pods: self.pods,
            extrapolated,
        }
    }
}

impl Rounds {
    fn values(&self) -> Vec<f64> {
        self.0.values().map(|values| median(values)).collect()
    }

    /// Each round that both have, its value divided by the other's.
    fn ratios(&self, baseline: &Rounds) -> Rounds {
        let ratio = |(round, values): (&u32, &Vec<f64>)| {
            let ratio = median(values) / median(baseline.0.get(round)?);
            ratio.is_finite().then_some((*round, vec![ratio]))
        };
        Rounds(self.0.iter().filter_map(ratio).collect())
    }
}

fn series<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> BTreeMap<Key, Rounds> {
    let mut all: BTreeMap<Key, Rounds> = BTreeMap::new();
    for sample in samples {
        let key = Key {
            scenario: sample.scenario.clone(),
            placement: sample.placement,
            metric: sample.metric,
            unit: sample.unit,
            pods: sample.pods,
            mode: sample.mode.clone(),
        };
        let rounds = all.entry(key).or_default();
        rounds.0.entry(sample.round).or_default().push(sample.value);
    }
    all
}

/// The ratio to the baseline's same series.
fn ratio(key: &Key, rounds: &Rounds, all: &BTreeMap<Key, Rounds>) -> Option<Measurement> {
    if key.mode == BASELINE {
        return None;
    }
    let mode = BASELINE.to_owned();
    let baseline = all.get(&Key {
        mode,
        ..key.clone()
    })?;
    let ratios = rounds.ratios(baseline);
    if ratios.0.is_empty() {
        return None;
    }
    let unit = Unit::Ratio;
    let key = Key {
        unit,
        ..key.clone()
    };
    Some(key.measurement(confidence(&ratios.values()), &ratios, false))
}

/// Where each round's line through its memory leads to at [`MANY_PODS`]; nothing where that many
/// were measured, or where a round has only one number of pods.
fn extrapolated(measured: &BTreeMap<Key, Rounds>) -> Vec<Sample> {
    let mut points: BTreeMap<(Key, u32), Vec<(f64, f64)>> = BTreeMap::new();
    for (key, rounds) in measured {
        let Some(pods) = key.pods else { continue };
        let pods = f64::from(pods);
        for (round, values) in &rounds.0 {
            let many = Key {
                pods: Some(MANY_PODS),
                ..key.clone()
            };
            let points = points.entry((many, *round)).or_default();
            points.push((pods, median(values)));
        }
    }
    let lines = points.into_iter().filter_map(|((key, round), points)| {
        let line = Line::through(&points).filter(|_| !measured.contains_key(&key))?;
        Some(Sample {
            scenario: key.scenario,
            mode: key.mode,
            placement: key.placement,
            metric: key.metric,
            unit: key.unit,
            round,
            value: line.at(f64::from(MANY_PODS)),
            pods: key.pods,
        })
    });
    lines.collect()
}

/// Median and quartiles.
fn spread(values: &[f64]) -> Spread {
    let sorted = sorted(values);
    Spread {
        low: quantile(&sorted, 0.25),
        value: quantile(&sorted, 0.5),
        high: quantile(&sorted, 0.75),
    }
}

/// The median and its 95 % confidence interval by the percentile bootstrap: the medians of
/// [`RESAMPLES`] draws with replacement. With five rounds that is nearly their whole range, which
/// is as much as five rounds can promise.
fn confidence(values: &[f64]) -> Spread {
    let mut random = StdRng::seed_from_u64(SEED);
    let draw = |_| {
        let drawn: Vec<f64> = (0..values.len())
            .map(|_| values[random.random_range(0..values.len())])
            .collect();
        median(&drawn)
    };
    let medians = sorted(&(0..RESAMPLES).map(draw).collect::<Vec<_>>());
    let value = median(values);
    Spread {
        low: quantile(&medians, 0.025).min(value),
        value,
        high: quantile(&medians, 0.975).max(value),
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests;
