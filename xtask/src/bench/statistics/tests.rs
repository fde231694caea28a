use proptest::{collection::vec, prelude::*};

use super::*;

fn sample(mode: &str, round: u32, value: f64) -> Sample {
    Sample {
        scenario: "bulk-1".to_owned(),
        mode: mode.to_owned(),
        placement: Some(Placement::CrossNode),
        metric: Metric::Throughput,
        unit: Unit::GigabitsPerSecond,
        round,
        value,
        pods: None,
    }
}

fn memory(pods: u32, round: u32, value: f64) -> Sample {
    Sample {
        scenario: "memory".to_owned(),
        placement: None,
        metric: Metric::Resident,
        unit: Unit::Mebibytes,
        pods: Some(pods),
        ..sample("ambit", round, value)
    }
}

fn samples(mode: &str, values: &[f64]) -> Vec<Sample> {
    (0..)
        .zip(values)
        .map(|(round, value)| sample(mode, round, *value))
        .collect()
}

/// The only measurement of a mode in a unit.
fn only(all: &[Measurement], mode: &str, unit: Unit) -> Measurement {
    let mut found = all
        .iter()
        .filter(|one| one.mode == mode && one.unit == unit);
    let one = found.next().expect("it is measured").clone();
    assert_eq!(found.next(), None, "of {mode} in {unit:?}");
    one
}

#[test]
fn median_and_quartiles_are_those_of_the_rounds() {
    let table: [(&[f64], [f64; 3]); 5] = [
        (&[7.0], [7.0, 7.0, 7.0]),
        (&[1.0, 2.0], [1.25, 1.5, 1.75]),
        (&[5.0, 1.0, 3.0], [2.0, 3.0, 4.0]),
        (&[1.0, 100.0, 2.0, 4.0, 3.0], [2.0, 3.0, 4.0]),
        (&[2.0, f64::NAN, 2.0, f64::INFINITY], [2.0, 2.0, 2.0]),
    ];
    for (values, [low, value, high]) in table {
        let all = measurements(&samples("none", values));
        let one = only(&all, "none", Unit::GigabitsPerSecond);
        assert_eq!(
            [one.low, one.value, one.high],
            [low, value, high],
            "{values:?}"
        );
        let finite = values.iter().filter(|value| value.is_finite()).count();
        assert_eq!(one.rounds as usize, finite, "{values:?}");
    }
}

#[test]
fn a_ratio_pairs_rounds_so_that_what_slows_both_cancels() {
    let mut all = samples("none", &[10.0, 20.0, 40.0, 5.0, 8.0]);
    all.extend(samples("ambit", &[6.0, 12.0, 24.0, 3.0, 4.8]));
    let ratio = only(&measurements(&all), "ambit", Unit::Ratio);
    for end in [ratio.low, ratio.value, ratio.high] {
        assert!((end - 0.6).abs() < 1e-9, "{ratio:?}");
    }
    assert_eq!((ratio.metric, ratio.rounds), (Metric::Throughput, 5));
}

#[test]
fn no_ratio_is_made_without_a_baseline_of_the_same_round_and_place() {
    let elsewhere = Sample {
        placement: None,
        ..sample("none", 0, 5.0)
    };
    let nowhere = Sample {
        value: 0.0,
        ..sample("none", 0, 5.0)
    };
    for baseline in [
        elsewhere,
        nowhere,
        sample("none", 3, 5.0),
        sample("ambit", 1, 5.0),
    ] {
        let all = measurements(&[sample("ambit", 0, 4.0), baseline.clone()]);
        let ratios = all.iter().filter(|one| one.unit == Unit::Ratio).count();
        assert_eq!(ratios, 0, "{baseline:?}");
    }
}

#[test]
fn the_baseline_has_no_ratio_to_itself() {
    let all = measurements(&samples("none", &[1.0, 2.0]));
    assert!(all.iter().all(|one| one.unit != Unit::Ratio));
}

#[test]
fn memory_is_extrapolated_by_a_line_and_says_so() {
    let mut all = Vec::new();
    for (round, base) in [(0, 20.0), (1, 22.0), (2, 30.0)] {
        for pods in [1, 10, 50, 200] {
            all.push(memory(pods, round, base + 0.1 * f64::from(pods)));
        }
    }
    let all = measurements(&all);
    let [many] = &all
        .iter()
        .filter(|one| one.extrapolated)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one of {all:?}");
    };
    assert_eq!((many.pods, many.rounds), (Some(MANY_PODS), 3));
    assert!((many.value - 72.0).abs() < 1e-9, "{many:?}");
    assert!(
        (many.low - 71.0).abs() < 1e-9 && (many.high - 76.0).abs() < 1e-9,
        "{many:?}"
    );
}

#[test]
fn memory_is_not_extrapolated_from_one_point_or_over_what_was_measured() {
    for pods in [&[10][..], &[1, 10, MANY_PODS]] {
        let samples: Vec<_> = pods.iter().map(|pods| memory(*pods, 0, 5.0)).collect();
        let all = measurements(&samples);
        assert_eq!(all.len(), pods.len());
        assert!(all.iter().all(|one| !one.extrapolated), "{pods:?}");
    }
}

#[test]
fn nothing_comes_of_nothing() {
    assert_eq!(measurements(&[]), []);
    assert!(median(&[]).is_nan());
    assert_eq!(Line::through(&[]), None);
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    vec(1e-3..1e6, 1..12)
}

proptest! {
    // Each case draws thousands of resamples.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn low_value_and_high_rise_within_the_rounds(values in values()) {
        let all = measurements(&samples("none", &values));
        let one = only(&all, "none", Unit::GigabitsPerSecond);
        let ends = sorted(&values);
        let rising = [ends[0], one.low, one.value, one.high, ends[ends.len() - 1]];
        prop_assert!(rising.is_sorted(), "{:?}", rising);
    }

    #[test]
    fn the_ratio_of_equal_series_is_one(values in values()) {
        let mut all = samples("none", &values);
        all.extend(samples("ambit", &values));
        let ratio = only(&measurements(&all), "ambit", Unit::Ratio);
        prop_assert_eq!([ratio.low, ratio.value, ratio.high], [1.0; 3]);
    }

    /// As if the benchmark had counted in another unit. A power of two keeps it exact.
    #[test]
    fn a_ratio_knows_no_unit(pairs in vec((1e-3..1e6, 1e-3..1e6), 1..12), power in -8i32..8) {
        let ratio = |scale: f64| {
            let (ours, theirs): (Vec<f64>, Vec<f64>) =
                pairs.iter().map(|(ours, theirs)| (ours * scale, theirs * scale)).unzip();
            let mut all = samples("none", &theirs);
            all.extend(samples("ambit", &ours));
            only(&measurements(&all), "ambit", Unit::Ratio)
        };
        prop_assert_eq!(ratio(2f64.powi(power)), ratio(1.0));
    }

    #[test]
    fn the_confidence_interval_is_the_same_each_time_and_holds_the_median(values in values()) {
        let (first, again) = (confidence(&values), confidence(&values));
        prop_assert_eq!((first.low, first.high), (again.low, again.high));
        let ends = sorted(&values);
        let rising = [ends[0], first.low, first.value, first.high, ends[ends.len() - 1]];
        prop_assert!(rising.is_sorted(), "{:?}", rising);
    }

    #[test]
    fn the_order_of_samples_does_not_matter(
        values in vec((1e-3..1e6, 0u32..6), 1..12).prop_shuffle()
    ) {
        let samples = |values: &[(f64, u32)]| -> Vec<Sample> {
            values.iter().map(|(value, round)| sample("none", *round, *value)).collect()
        };
        let reversed: Vec<_> = values.iter().rev().copied().collect();
        prop_assert_eq!(measurements(&samples(&values)), measurements(&samples(&reversed)));
    }

    #[test]
    fn a_line_is_found_again_from_its_points(
        intercept in -1e3f64..1e3, slope in -1e3f64..1e3, xs in vec(0u16..500, 2..9)
    ) {
        let points: Vec<_> = xs.iter().map(|x| f64::from(*x)).map(|x| (x, intercept + slope * x)).collect();
        let differ = xs.iter().any(|x| *x != xs[0]);
        let line = Line::through(&points);
        prop_assert_eq!(line.is_some(), differ);
        if let Some(line) = line {
            prop_assert!((line.at(500.0) - (intercept + slope * 500.0)).abs() < 1e-4);
        }
    }
}
