//! Figures and facts as people read them.

use super::{
    super::measurement::{Measurement, Unit},
    Report,
};

/// With three significant digits unless it is a whole number, thousands apart: `134,928`, `20.4`,
/// `0.055`, `8`.
pub(in super::super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 || size.fract() == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let plain = format!("{value:.decimals$}");
    if decimals > 0 {
        return plain;
    }
    let digits = plain.trim_start_matches('-');
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    let sign = &plain[..plain.len() - digits.len()];
    format!("{sign}{}", groups.join(","))
}

/// `20.4 [19.8–21.0]`, a ratio with an `×` before it.
pub(super) fn figure(one: &Measurement) -> String {
    let times = if one.unit == Unit::Ratio { "×" } else { "" };
    let [value, low, high] = [one.value, one.low, one.high].map(number);
    format!("{times}{value} [{low}–{high}]")
}

/// The machine, the programs on it and the command, each with its name.
pub(super) fn facts(report: &Report) -> Vec<(String, String)> {
    let command = &report.command;
    let length = if command.quick {
        "quick: fewer and shorter rounds"
    } else {
        "full"
    };
    let unknown = || "unknown".to_owned();
    let mut facts = vec![
        ("command".to_owned(), command.line.clone()),
        ("date".to_owned(), command.date.clone()),
        (
            "took".to_owned(),
            format!("{:.0} s ({length})", command.seconds),
        ),
        (
            "revision".to_owned(),
            command.revision.clone().unwrap_or_else(unknown),
        ),
    ];
    let machine = report.machine.facts().into_iter();
    facts.extend(machine.map(|(name, value)| (name.to_owned(), value)));
    facts.extend(report.machine.versions.clone());
    facts
}

/// In one line, as an error's text may not be.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How to read a report of any format.
pub(super) const LEGEND: &str = "A figure is the median of its rounds, in brackets their quartiles. A ratio (×) is to mode \
    none, plain TCP without any mesh: the median of the rounds' ratios, each of what was measured in the same \
    round, in brackets its 95 % confidence interval by bootstrap. The best of the meshes is marked \
    whichever it is, and so is each whose interval reaches the best one's; none is where all do.";

/// What is said in place of figures where none was taken.
pub(super) const NOTHING: &str = "Nothing was measured.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_part_thousands() {
        let table = [
            (0.0, "0"),
            (0.0554, "0.055"),
            (0.9999, "1.00"),
            (8.0, "8"),
            (9.996, "10.0"),
            (20.44, "20.4"),
            (99.96, "100"),
            (134_928.4, "134,928"),
            (-1234.0, "-1,234"),
            (1_000_000.0, "1,000,000"),
        ];
        for (value, text) in table {
            assert_eq!(number(value), text, "{value}");
        }
    }
}
