//! The table on the terminal: one line a figure, a column a mode.

use super::{
    super::measurement::BASELINE,
    Report,
    grid::{Cell, Column, Grid, Row, grids, modes},
    text::{NOTHING, number, one_line},
};

/// Ratios to mode `none`, itself in its unit; what has no ratio is in its unit everywhere.
pub(super) fn of(report: &Report) -> String {
    let grids = grids(report);
    let mut text = if grids.is_empty() {
        format!("{NOTHING}\n")
    } else {
        aligned(&lines(&grids, &modes(report)))
            + "(× is the ratio to none; * the best mesh, or no worse than it within the noise)\n"
    };
    for note in &report.notes {
        text += &format!("note: {}\n", one_line(note));
    }
    for missing in &report.missing {
        let scenario = missing.scenario.as_deref().unwrap_or("everything");
        let reason = one_line(&missing.reason);
        text += &format!("missing: {scenario} of {}: {reason}\n", missing.mode);
    }
    text
}

fn lines(grids: &[Grid<'_>], modes: &[&str]) -> Vec<Vec<String>> {
    let heads = ["scenario", "placement", "metric"];
    let mut lines = vec![
        heads
            .iter()
            .chain(modes)
            .map(|&head| head.to_owned())
            .collect(),
    ];
    for grid in grids {
        for (index, column) in grid.columns.iter().enumerate() {
            let placement = grid.placement.map_or("", |placement| placement.name());
            let mut line = vec![
                grid.scenario.to_owned(),
                placement.to_owned(),
                metric(column),
            ];
            line.extend(modes.iter().map(|mode| {
                let row = grid.rows.iter().find(|row| row.mode == *mode);
                row.map_or_else(|| "-".to_owned(), |row| field(row, index))
            }));
            lines.push(line);
        }
    }
    lines
}

fn metric(column: &Column) -> String {
    let pods = column
        .pods
        .map_or_else(String::new, |pods| format!(" {pods} pods"));
    let sign = if column.extrapolated { " (line)" } else { "" };
    format!("{}{pods}{sign}", column.metric.name())
}

fn field(row: &Row<'_>, index: usize) -> String {
    let Some(Cell {
        figure,
        ratio,
        best,
    }) = &row.cells[index]
    else {
        return "-".to_owned();
    };
    let mark = if *best { "*" } else { "" };
    match ratio {
        Some(ratio) if row.mode != BASELINE => format!("×{}{mark}", number(ratio.value)),
        _ => format!("{} {}{mark}", number(figure.value), figure.unit.name()),
    }
}

/// Columns of one width each, two spaces apart.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let lengths = lines.iter().map(|line| line[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let fields: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(field, width)| format!("{field:width$}"))
            .collect();
        text += fields.join("  ").trim_end();
        text.push('\n');
    }
    text
}
