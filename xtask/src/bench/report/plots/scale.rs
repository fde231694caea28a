//! Where an axis has its marks, and what stands there.

use std::ops::Range;

use plotters::coord::{
    ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    types::RangedCoordf64,
};

use super::super::text::number;

/// An axis with marks where we want them, since those that would be chosen for it fit neither
/// percentiles nor logarithms.
pub(super) struct Axis {
    range: RangedCoordf64,
    marks: Vec<f64>,
    text: fn(f64) -> String,
}

impl Axis {
    /// `text` is what stands at each of `marks`.
    pub(super) fn new(range: Range<f64>, marks: Vec<f64>, text: fn(f64) -> String) -> Axis {
        Axis {
            range: range.into(),
            marks,
            text,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.text)(*value)
    }
}

/// Marks from 0 to at most `max`, at most `most` and at least one more than zero: at multiples of
/// 1, 2 or 5 times a power of ten.
pub(super) fn linear(max: f64, most: u32) -> Vec<f64> {
    let rough = max / f64::from(most.max(1));
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter();
    let step = step
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(max);
    (0..=most)
        .map(|mark| f64::from(mark) * step)
        .take_while(|mark| *mark <= max)
        .collect()
}

/// Marks between `low` and `high` (both above 0) of a logarithmic axis, as logarithms to base
/// ten: fewer a decade, the more decades there are.
pub(super) fn logarithmic(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let factors: &[f64] = match decades {
        few if few < 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        few if few < 2.5 => &[1.0, 2.0, 5.0],
        few if few < 4.0 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let (low, high) = (low.log10(), high.log10());
    let mut marks = Vec::new();
    let mut power = low.floor();
    while power <= high {
        marks.extend(factors.iter().map(|factor| power + factor.log10()));
        power += 1.0;
    }
    marks.retain(|mark| (low..=high).contains(mark));
    marks
}

/// What stands at a mark: no more digits than it needs.
pub(super) fn mark(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    if rounded.abs() >= 1000.0 {
        number(rounded)
    } else {
        rounded.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers_within_the_axis() {
        let table: [(f64, &[f64]); 4] = [
            (20.4, &[0.0, 5.0, 10.0, 15.0, 20.0]),
            (0.55, &[0.0, 0.2, 0.4]),
            (140_000.0, &[0.0, 50_000.0, 100_000.0]),
            (1.0, &[0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]),
        ];
        for (max, marks) in table {
            assert_eq!(linear(max, 5), marks, "{max}");
        }
    }

    #[test]
    fn a_logarithmic_axis_has_three_marks_or_more_whatever_it_spans() {
        for (low, high) in [(50.0, 120.0), (40.0, 900.0), (30.0, 50_000.0), (1.0, 1e6)] {
            let marks = logarithmic(low, high);
            assert!((3..=9).contains(&marks.len()), "{low} to {high}: {marks:?}");
            assert!(marks.is_sorted(), "{marks:?}");
        }
    }

    #[test]
    fn a_mark_has_no_more_digits_than_it_needs() {
        for (value, text) in [
            (0.6000000000000001, "0.6"),
            (20.0, "20"),
            (50_000.0, "50,000"),
        ] {
            assert_eq!(mark(value), text);
        }
    }
}
