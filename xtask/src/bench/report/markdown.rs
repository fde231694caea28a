//! `report.md`: a table a scenario.

use super::{
    super::measurement::Missing,
    Report,
    grid::{Cell, Grid, Row, grids},
    text::{LEGEND, NOTHING, facts, figure, one_line},
};

/// The whole report.
pub(super) fn of(report: &Report) -> String {
    let mut text = "# What this mesh costs\n\n".to_owned();
    let facts: Vec<_> = facts(report)
        .into_iter()
        .map(|(name, value)| vec![name, value])
        .collect();
    text += &table(&["", ""], &facts);
    text += &format!("\n{LEGEND}\n");
    let grids = grids(report);
    if grids.is_empty() {
        text += &format!("\n{NOTHING}\n");
    }
    for grid in &grids {
        text += &format!("\n## {}\n\n{}", grid.title(), figures(grid));
    }
    text + &notes(&report.notes) + &missing(&report.missing)
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = notes
        .iter()
        .map(|note| format!("- {}\n", escaped(note)))
        .collect();
    format!("\n## To judge by\n\n{}", lines.concat())
}

fn figures(grid: &Grid<'_>) -> String {
    let titles: Vec<String> = grid.columns.iter().map(|column| column.title()).collect();
    let heads: Vec<&str> = ["mode"]
        .into_iter()
        .chain(titles.iter().map(String::as_str))
        .collect();
    let rows: Vec<_> = grid.rows.iter().map(row).collect();
    table(&heads, &rows)
}

fn row(row: &Row<'_>) -> Vec<String> {
    let mut fields = vec![row.mode.to_owned()];
    fields.extend(
        row.cells
            .iter()
            .map(|cell| cell.as_ref().map_or_else(|| "—".to_owned(), field)),
    );
    if let (Some(reason), Some(first)) = (row.missing, fields.get_mut(1)) {
        *first = format!("not measured: {reason}");
    }
    fields
}

fn field(cell: &Cell<'_>) -> String {
    let ratio = cell
        .ratio
        .map(|ratio| format!(", {}", figure(ratio)))
        .unwrap_or_default();
    let text = format!("{}{ratio}", figure(cell.figure));
    if cell.best {
        format!("**{text}**")
    } else {
        text
    }
}

fn missing(missing: &[Missing]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let row = |one: &Missing| {
        let scenario = one.scenario.as_deref().unwrap_or("everything");
        vec![one.mode.clone(), scenario.to_owned(), one.reason.clone()]
    };
    let rows: Vec<_> = missing.iter().map(row).collect();
    format!(
        "\n## What is missing\n\n{}",
        table(&["mode", "scenario", "why"], &rows)
    )
}

fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line = |fields: &mut dyn Iterator<Item = String>| {
        let fields: Vec<String> = fields.collect();
        format!("| {} |\n", fields.join(" | "))
    };
    let mut text = line(&mut heads.iter().map(|&head| head.to_owned()));
    text += &line(&mut heads.iter().map(|_| "---".to_owned()));
    for row in rows {
        text += &line(&mut row.iter().map(|field| escaped(field)));
    }
    text
}

/// Without what would end a cell or a line, or begin a tag.
fn escaped(field: &str) -> String {
    one_line(field).replace('|', "\\|").replace('<', "&lt;")
}
