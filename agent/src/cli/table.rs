//! Tables for people: headers in capitals, columns aligned, three spaces between.

use std::{cmp::Ordering, fmt};

use jiff::Timestamp;

const GAP: &str = "   ";

/// Stands for what isn't there, so that every line has a word in every column.
pub(super) const NOTHING: &str = "-";

/// Rows of as many cells as there are headers.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    headers: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(
        headers: [&'static str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Self {
        let rows = rows.into_iter();
        Self {
            headers,
            rows: rows.map(|row| row.map(printable)).collect(),
        }
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.headers[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let headers = self.headers.map(str::to_owned);
        for row in [&headers].into_iter().chain(&self.rows) {
            f.write_str(&line(row.iter().map(String::as_str).zip(widths)))?;
        }
        Ok(())
    }
}

/// A line of cells, each as wide as is said or as it needs.
pub(super) fn line<'a>(cells: impl Iterator<Item = (&'a str, usize)>) -> String {
    let padded = cells.map(|(cell, width)| format!("{cell:width$}{GAP}"));
    let line: String = padded.collect();
    format!("{}\n", line.trim_end())
}

/// One line: what others wrote (names, error messages) may neither break lines nor command a
/// terminal.
pub(super) fn printable(text: String) -> String {
    match text.chars().any(char::is_control) {
        true => text.replace(char::is_control, " "),
        false => text,
    }
}

/// Namespace and name of `namespace/name`.
pub(super) fn split_name(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((NOTHING, name))
}

/// In the order of namespaces, then of names.
pub(super) fn compare_names(a: &str, b: &str) -> Ordering {
    split_name(a).cmp(&split_name(b))
}

/// The text; [`NOTHING`] if it isn't known.
pub(super) fn known(text: &Option<String>) -> String {
    text.clone().unwrap_or(NOTHING.to_owned())
}

/// An identity without the scheme that all have.
pub(super) fn identity(spiffe_id: &str) -> String {
    let short = spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id);
    short.to_owned()
}

/// The items with commas between; [`NOTHING`] if there are none.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.is_empty() {
        true => NOTHING.to_owned(),
        false => items.join(","),
    }
}

/// The text; [`NOTHING`] if it's empty.
pub(super) fn or_nothing(text: &str) -> String {
    list([text].iter().filter(|text| !text.is_empty()))
}

/// For a column of truths.
pub(super) fn yes_or_no(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

/// A time span in its two largest units: `42s`, `9m50s`, `23h59m`, `5d3h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// How far off a time is: `in 9m50s`, or `3s ago`.
pub(super) fn distance(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.as_second() - now.as_second();
    match seconds {
        ..0 => format!("{} ago", span(seconds.unsigned_abs())),
        0.. => format!("in {}", span(seconds.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_a_word() {
        let rows = [["shop", "till", "-"], ["a", "über-kasse", "x\ny\u{1b}[2J"]];
        let table = Table::new(
            ["NAMESPACE", "NAME", "ERROR"],
            rows.map(|row| row.map(str::to_owned)),
        );
        let expected = "\
NAMESPACE   NAME         ERROR
shop        till         -
a           über-kasse   x y [2J
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_table_without_rows_is_its_headers() {
        let table = Table::new(["NAME", "AGE"], []);
        assert_eq!(table.to_string(), "NAME   AGE\n");
    }

    #[test]
    fn time_spans_have_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (590, "9m50s"),
            (3_600, "1h0m"),
            (86_399, "23h59m"),
            (86_400, "1d0h"),
            (442_800, "5d3h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (second, expected) in [
            (1_000_590, "in 9m50s"),
            (1_000_000, "in 0s"),
            (999_997, "3s ago"),
        ] {
            let then = Timestamp::from_second(second).unwrap();
            assert_eq!(distance(then, now), expected);
        }
    }
}
