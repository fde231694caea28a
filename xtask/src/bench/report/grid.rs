//! Figures side by side: what the tables of every format show.

use std::{cmp::Ordering, collections::BTreeSet};

use super::{
    super::measurement::{BASELINE, Measurement, Metric, Missing, Placement, Unit},
    Report,
};

/// One scenario in one placement: modes by what was measured of them.
#[derive(Debug, PartialEq)]
pub(super) struct Grid<'a> {
    pub(super) scenario: &'a str,
    pub(super) placement: Option<Placement>,
    pub(super) columns: Vec<Column>,
    /// The baseline first, ourselves last.
    pub(super) rows: Vec<Row<'a>>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Column {
    pub(super) metric: Metric,
    /// Never that of a ratio.
    pub(super) unit: Unit,
    pub(super) pods: Option<u32>,
    pub(super) extrapolated: bool,
}

/// A mode.
#[derive(Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) mode: &'a str,
    /// As many as columns.
    pub(super) cells: Vec<Option<Cell<'a>>>,
    /// Why nothing of it was measured here.
    pub(super) missing: Option<&'a str>,
}

/// A figure.
#[derive(Debug, PartialEq)]
pub(super) struct Cell<'a> {
    pub(super) figure: &'a Measurement,
    pub(super) ratio: Option<&'a Measurement>,
    /// The best of what isn't the baseline, or no worse as far as the rounds can tell.
    pub(super) best: bool,
}

/// All of a report, in the order in which it is read.
pub(super) fn grids(report: &Report) -> Vec<Grid<'_>> {
    let mut places: Vec<(&str, Option<Placement>)> = report
        .measurements
        .iter()
        .map(|one| (one.scenario.as_str(), one.placement))
        .collect();
    places.sort_by_key(|(scenario, placement)| (rank_of_scenario(scenario), *scenario, *placement));
    places.dedup();
    places
        .into_iter()
        .map(|place| grid(report, place))
        .collect()
}

/// Every mode that was measured, the baseline first, ourselves last.
pub(super) fn modes(report: &Report) -> Vec<&str> {
    in_order(report.measurements.iter().map(|one| one.mode.as_str()))
}

impl Column {
    /// `p50, us`, `resident of 200 pods, MiB`.
    pub(super) fn title(&self) -> String {
        let pods = match (self.pods, self.extrapolated) {
            (None, _) => String::new(),
            (Some(pods), false) => format!(" of {pods} pods"),
            (Some(pods), true) => format!(" of {pods} pods (extrapolated)"),
        };
        format!("{}{pods}, {}", self.metric.name(), self.unit.name())
    }
}

impl Grid<'_> {
    /// `bulk-1, cross-node`.
    pub(super) fn title(&self) -> String {
        let placement = self
            .placement
            .map(|placement| format!(", {}", placement.name()));
        format!("{}{}", self.scenario, placement.unwrap_or_default())
    }
}

fn grid<'a>(report: &'a Report, (scenario, placement): (&'a str, Option<Placement>)) -> Grid<'a> {
    let here: Vec<&Measurement> = report
        .measurements
        .iter()
        .filter(|one| one.scenario == scenario && one.placement == placement)
        .collect();
    let figures = || here.iter().copied().filter(|one| one.unit != Unit::Ratio);
    let columns: BTreeSet<Column> = figures().map(column).collect();
    let columns: Vec<Column> = columns.into_iter().collect();
    // A mode that is missing altogether is said once, not in every table.
    let concerns = |missing: &&Missing| missing.scenario.as_deref() == Some(scenario);
    let missing = || report.missing.iter().filter(concerns);
    let measured = here.iter().map(|one| one.mode.as_str());
    let rows = in_order(measured.chain(missing().map(|missing| missing.mode.as_str())))
        .into_iter()
        .map(|mode| {
            let cell = |wanted: &Column| {
                let figure = figures().find(|one| one.mode == mode && column(one) == *wanted)?;
                let ratio = here.iter().copied().find(|one| is_ratio_of(one, figure));
                let rivals = figures().filter(|one| column(one) == *wanted);
                let best = is_best(figure, rivals);
                Some(Cell {
                    figure,
                    ratio,
                    best,
                })
            };
            let cells: Vec<_> = columns.iter().map(cell).collect();
            let missing = cells
                .iter()
                .all(Option::is_none)
                .then(|| missing().find(|missing| missing.mode == mode))
                .flatten();
            Row {
                mode,
                cells,
                missing: missing.map(|missing| missing.reason.as_str()),
            }
        })
        .collect();
    Grid {
        scenario,
        placement,
        columns,
        rows,
    }
}

fn column(one: &Measurement) -> Column {
    let Measurement {
        metric,
        unit,
        pods,
        extrapolated,
        ..
    } = *one;
    Column {
        metric,
        unit,
        pods,
        extrapolated,
    }
}

fn is_ratio_of(ratio: &Measurement, figure: &Measurement) -> bool {
    ratio.unit == Unit::Ratio
        && (&ratio.mode, ratio.metric, ratio.pods) == (&figure.mode, figure.metric, figure.pods)
}

/// Whether `figure` is the best of `rivals`, or its interval reaches the best one's. The baseline
/// doesn't compete; alone, or where all are equal, nobody wins.
fn is_best<'a>(figure: &Measurement, rivals: impl Iterator<Item = &'a Measurement>) -> bool {
    let better = figure.metric.better();
    let rivals: Vec<_> = rivals.filter(|one| one.mode != BASELINE).collect();
    let Some(best) = rivals.iter().max_by(|one, other| match better {
        Ordering::Less => other.value.total_cmp(&one.value),
        Ordering::Equal | Ordering::Greater => one.value.total_cmp(&other.value),
    }) else {
        return false;
    };
    let reaches = |one: &Measurement| one.low <= best.high && best.low <= one.high;
    figure.mode != BASELINE && reaches(figure) && !rivals.iter().all(|one| reaches(one))
}

fn in_order<'a>(modes: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let modes: BTreeSet<(u8, &str)> = modes.map(|mode| (rank_of_mode(mode), mode)).collect();
    modes.into_iter().map(|(_, mode)| mode).collect()
}

fn rank_of_mode(mode: &str) -> u8 {
    match mode {
        BASELINE => 0,
        "ambit" => 2,
        "ambit-proxied" => 3,
        ours if ours.starts_with("ambit") => 4,
        _ => 1,
    }
}

/// The place in the report, and the number at the end of the name: `fixed-rate-1000` follows
/// `fixed-rate-500`. Scenarios that are unknown here come last.
fn rank_of_scenario(scenario: &str) -> (usize, u64) {
    const ORDER: [&str; 9] = [
        "bulk",
        "round-trip",
        "fixed-rate",
        "connect",
        "connect-cold",
        "idle",
        "memory",
        "startup",
        "proxy-restart",
    ];
    let numbered = scenario
        .rsplit_once('-')
        .and_then(|(name, number)| Some((name, number.parse().ok()?)));
    let (name, number) = numbered.unwrap_or((scenario, 0));
    (
        ORDER
            .iter()
            .position(|one| *one == name)
            .unwrap_or(ORDER.len()),
        number,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mode: &str, metric: Metric, low: f64, value: f64, high: f64) -> Measurement {
        Measurement {
            scenario: "bulk-1".to_owned(),
            mode: mode.to_owned(),
            placement: None,
            metric,
            unit: Unit::GigabitsPerSecond,
            value,
            low,
            high,
            rounds: 5,
            pods: None,
            extrapolated: false,
        }
    }

    #[track_caller]
    fn check_best(metric: Metric, figures: &[(&str, [f64; 3])], expected: &[&str]) {
        let figures: Vec<_> = figures
            .iter()
            .map(|(mode, [low, value, high])| measured(mode, metric, *low, *value, *high))
            .collect();
        let best: Vec<_> = figures
            .iter()
            .filter(|figure| is_best(figure, figures.iter()))
            .map(|figure| figure.mode.as_str())
            .collect();
        assert_eq!(best, expected);
    }

    #[test]
    fn the_best_is_marked_whoever_it_is_and_by_the_metric_s_direction() {
        let figures = [
            ("none", [20.0, 21.0, 22.0]),
            ("sidecar-haproxy", [8.0, 9.0, 10.0]),
            ("ambit", [5.0, 6.0, 7.0]),
        ];
        check_best(Metric::Throughput, &figures, &["sidecar-haproxy"]);
        check_best(Metric::P99, &figures, &["ambit"]);
    }

    #[test]
    fn a_tie_within_noise_has_several_winners_unless_nobody_lost() {
        let (haproxy, ambit) = (
            ("sidecar-haproxy", [8.0, 9.0, 10.0]),
            ("ambit", [9.5, 10.0, 11.0]),
        );
        let slow = ("sidecar-envoy", [5.0, 6.0, 7.0]);
        let tie = ["sidecar-haproxy", "ambit"];
        check_best(Metric::Throughput, &[haproxy, ambit, slow], &tie);
        check_best(Metric::Throughput, &[haproxy, ambit], &[]);
        let alone = [("none", [8.0, 9.0, 10.0]), ("ambit", [9.5, 10.0, 11.0])];
        check_best(Metric::Throughput, &alone, &[]);
    }

    #[test]
    fn scenarios_and_modes_have_the_order_in_which_they_are_read() {
        let expected = [
            "bulk-1",
            "bulk-8",
            "round-trip-1",
            "round-trip-32",
            "fixed-rate-500",
            "fixed-rate-2000",
            "connect",
            "connect-cold",
            "memory",
            "startup",
            "proxy-restart",
            "another",
        ];
        let mut sorted = expected;
        sorted.sort_unstable();
        sorted.sort_by_key(|scenario| rank_of_scenario(scenario));
        assert_eq!(sorted, expected);
        let modes = [
            "ambit+waypoint",
            "ambit-proxied",
            "ambit",
            "sidecar-haproxy",
            "none",
            "ambit",
            "its",
        ];
        let expected = [
            "none",
            "its",
            "sidecar-haproxy",
            "ambit",
            "ambit-proxied",
            "ambit+waypoint",
        ];
        assert_eq!(in_order(modes.into_iter()), expected);
    }
}
