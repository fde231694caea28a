//! What moved beyond noise since an earlier report.

use std::{cmp::Ordering, collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result};

use super::{
    measurement::{Measurement, Metric, Placement, Unit},
    report::{Report, number},
};

/// A smaller move is noise whatever the intervals say: a few rounds can agree by chance.
const NOISE: f64 = 0.03;

/// What is different, and what makes the two hard to compare.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    /// In what machine and command differ; a difference in figures may come from that.
    pub(super) warnings: Vec<String>,
    /// In the order of the new report.
    pub(super) moved: Vec<Move>,
    /// How many are in both and didn't move.
    pub(super) unmoved: usize,
    pub(super) only_old: Vec<Measurement>,
    pub(super) only_new: Vec<Measurement>,
}

/// A figure that moved beyond noise.
#[derive(Debug, PartialEq)]
pub(super) struct Move {
    pub(super) old: Measurement,
    pub(super) new: Measurement,
}

/// Reads an earlier run's `report.json`.
///
/// # Errors
/// It can't be read, or isn't a report of this shape; the error names the field.
pub(super) fn read(old: &Path) -> Result<Report> {
    let text = fs::read_to_string(old)
        .with_context(|| format!("cannot read the old report {}", old.display()))?;
    parse(&text).with_context(|| format!("the old report {}", old.display()))
}

impl Move {
    /// Whether it moved in the direction that the metric wants.
    pub(super) fn is_better(&self) -> bool {
        self.new.value.total_cmp(&self.old.value) == self.new.metric.better()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(formatter, "warning: {warning}")?;
        }
        for one in &self.moved {
            writeln!(formatter, "{one}")?;
        }
        for one in &self.only_old {
            writeln!(formatter, "only in the old report: {}", name(one))?;
        }
        for one in &self.only_new {
            writeln!(formatter, "only in the new report: {}", name(one))?;
        }
        let better = self.moved.iter().filter(|one| one.is_better()).count();
        let worse = self.moved.len() - better;
        write!(
            formatter,
            "{better} better, {worse} worse, {} unmoved",
            self.unmoved
        )
    }
}

impl fmt::Display for Move {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Move { old, new } = self;
        let word = if self.is_better() { "better" } else { "worse " };
        let (name, unit) = (name(new), new.unit.name());
        let (from, to) = (number(old.value), number(new.value));
        write!(formatter, "{word} {name}: {from} -> {to} {unit}")?;
        match (new.value / old.value - 1.0) * 100.0 {
            percent if percent.is_finite() => write!(formatter, " ({percent:+.1} %)"),
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> Result<Report> {
    let mut json = serde_json::Deserializer::from_str(text);
    let report = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            String::new()
        } else {
            format!("field `{path}`: ")
        };
        anyhow::anyhow!(
            "{field}{}; give --compare a report.json of this version of the benchmark, or run it \
             at the revision that wrote this one",
            error.inner()
        )
    })?;
    json.end()
        .context("something follows the report; give --compare a whole report.json")?;
    Ok(report)
}

/// Compares two reports.
///
/// A figure moved if the intervals of the two don't overlap and the values are more than 3 % apart.
pub(super) fn between(old: &Report, new: &Report) -> Comparison {
    let mut before: BTreeMap<Key<'_>, &Measurement> =
        old.measurements.iter().map(|one| (key(one), one)).collect();
    let mut comparison = Comparison {
        warnings: warnings(old, new),
        ..Comparison::default()
    };
    for one in &new.measurements {
        match before.remove(&key(one)) {
            None => comparison.only_new.push(one.clone()),
            Some(old) if moved(old, one) => {
                comparison.moved.push(Move {
                    old: old.clone(),
                    new: one.clone(),
                });
            }
            Some(_) => comparison.unmoved += 1,
        }
    }
    comparison.only_old = before.into_values().cloned().collect();
    comparison
}

fn warnings(old: &Report, new: &Report) -> Vec<String> {
    let machine = new.machine.differences(&old.machine).into_iter();
    let mut warnings: Vec<_> = machine
        .map(|what| format!("another machine: {what}"))
        .collect();
    if old.command.quick != new.command.quick {
        warnings.push("only one of the runs was --quick".to_owned());
    }
    let single = |report: &Report| report.measurements.iter().any(|one| one.rounds < 2);
    if single(old) || single(new) {
        warnings.push("figures of a single round have no interval that tells noise".to_owned());
    }
    warnings
}

fn moved(old: &Measurement, new: &Measurement) -> bool {
    let apart = old.high < new.low || new.high < old.low;
    let far = (new.value - old.value).abs() > NOISE * old.value.abs();
    apart && far && new.value.total_cmp(&old.value) != Ordering::Equal
}

type Key<'a> = (
    &'a str,
    &'a str,
    Option<Placement>,
    Metric,
    Unit,
    Option<u32>,
);

fn key(one: &Measurement) -> Key<'_> {
    let Measurement {
        placement,
        metric,
        unit,
        pods,
        ..
    } = *one;
    (&one.scenario, &one.mode, placement, metric, unit, pods)
}

/// `bulk-1 cross-node ambit throughput`, of a ratio with that word.
fn name(one: &Measurement) -> String {
    let mut words = vec![one.scenario.clone()];
    words.extend(one.placement.map(|placement| placement.name().to_owned()));
    words.extend([one.mode.clone(), one.metric.name().to_owned()]);
    words.extend(one.pods.map(|pods| format!("{pods} pods")));
    words.extend((one.unit == Unit::Ratio).then(|| "ratio".to_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests;
