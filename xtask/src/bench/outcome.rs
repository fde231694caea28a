//! What came of the steps so far: samples, and what failed.

use std::collections::BTreeSet;

use super::{
    measurement::{Curve, Metric, Missing, Placement, Sample, Unit},
    plan::Scenario,
};

/// One figure of a step, before it is known whose it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    pub(super) metric: Metric,
    pub(super) unit: Unit,
    pub(super) value: f64,
}

/// What all figures of a step have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) scenario: String,
    pub(super) mode: String,
    pub(super) placement: Option<Placement>,
}

/// All that a run yields.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) samples: Vec<Sample>,
    pub(super) curves: Vec<Curve>,
    pub(super) missing: Vec<Missing>,
    /// What a reader must know to judge the figures, a sentence each.
    pub(super) notes: BTreeSet<String>,
    given_up: BTreeSet<Cell>,
    failures: usize,
}

impl Cell {
    pub(super) fn new(scenario: Scenario, mode: &str, placement: Option<Placement>) -> Cell {
        Cell {
            scenario: scenario.to_string(),
            mode: mode.to_owned(),
            placement,
        }
    }

    pub(super) fn sample(&self, round: u32, pods: Option<u32>, figure: Figure) -> Sample {
        Sample {
            scenario: self.scenario.clone(),
            mode: self.mode.clone(),
            placement: self.placement,
            metric: figure.metric,
            unit: figure.unit,
            round,
            value: figure.value,
            pods,
        }
    }

    /// For progress and messages.
    pub(super) fn describe(&self) -> String {
        let placement = self.placement.map_or("", Placement::name);
        format!("{} {}", self.mode, placement).trim_end().to_owned()
    }
}

impl Outcome {
    /// Whether a round of the cell couldn't be used: its others are worth nothing then.
    pub(super) fn is_given_up(&self, cell: &Cell) -> bool {
        self.given_up.contains(cell)
    }

    /// A round failed, which fails the run in the end.
    pub(super) fn fail(&mut self, cell: &Cell, reason: &str) {
        self.give_up(cell, reason);
        self.failures += 1;
    }

    /// A round can't be used. The cell's other rounds go with it, for a median of those that went
    /// well would flatter a mode that doesn't always.
    pub(super) fn give_up(&mut self, cell: &Cell, reason: &str) {
        self.samples.retain(|sample| {
            (&sample.scenario, &sample.mode, sample.placement)
                != (&cell.scenario, &cell.mode, cell.placement)
        });
        self.curves.retain(|curve| {
            (&curve.scenario, &curve.mode, curve.placement)
                != (&cell.scenario, &cell.mode, cell.placement)
        });
        self.leave_out(cell, reason);
        self.given_up.insert(cell.clone());
    }

    /// Something wasn't measured, and that is no failure. Said again, it is kept once.
    pub(super) fn leave_out(&mut self, cell: &Cell, reason: &str) {
        let placement = cell.placement.map(Placement::name);
        let missing = Missing {
            mode: cell.mode.clone(),
            scenario: Some(cell.scenario.clone()),
            reason: placement.map_or_else(
                || reason.to_owned(),
                |placement| format!("{placement}: {reason}"),
            ),
        };
        if !self.missing.contains(&missing) {
            self.missing.push(missing);
        }
    }

    /// How many cells failed.
    pub(super) fn failures(&self) -> usize {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_round_takes_the_other_rounds_of_its_cell_and_no_others_with_it() {
        let figure = Figure {
            metric: Metric::Requests,
            unit: Unit::PerSecond,
            value: 1.0,
        };
        let cell = |mode, placement| Cell::new(Scenario::Connect, mode, Some(placement));
        let failing = cell("ambit", Placement::CrossNode);
        let others = [
            cell("none", Placement::CrossNode),
            cell("ambit", Placement::SameNode),
            Cell::new(Scenario::RoundTrip(1), "ambit", Some(Placement::CrossNode)),
        ];
        let mut outcome = Outcome::default();
        for round in 1..=2 {
            for cell in others.iter().chain([&failing]) {
                outcome.samples.push(cell.sample(round, None, figure));
            }
        }
        outcome.fail(&failing, "3 of 9 requests failed: reset");

        assert!(outcome.is_given_up(&failing));
        assert_eq!(outcome.failures(), 1);
        let expected: Vec<_> = (1..=2)
            .flat_map(|round| {
                others
                    .iter()
                    .map(move |cell| cell.sample(round, None, figure))
            })
            .collect();
        assert_eq!(outcome.samples, expected);
        let expected = Missing {
            mode: "ambit".to_owned(),
            scenario: Some("connect".to_owned()),
            reason: "cross-node: 3 of 9 requests failed: reset".to_owned(),
        };
        assert_eq!(outcome.missing, [expected]);
        assert!(others.iter().all(|cell| !outcome.is_given_up(cell)));
    }
}
