//! `report.html`: plots and tables on one page that needs nothing else.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    super::measurement::{Metric, Missing},
    Report,
    grid::{Cell, Grid, Row, grids, modes},
    plots::{self, GRID, Plot, TEXT, color, hex},
    text::{LEGEND, NOTHING, facts, figure},
};

/// The look of the page.
const STYLE: &str = include_str!("html/style.css");

/// The whole report.
///
/// # Errors
/// A plot can't be drawn.
pub(super) fn of(report: &Report) -> Result<String> {
    let (grids, modes) = (grids(report), modes(report));
    let bars = |metric| plots::bars(&grids, &modes, metric);
    let start = plots::bars(start_up(&grids), &modes, Metric::P50)?;
    let sections = [
        section("Throughput", "More is better.", &bars(Metric::Throughput)?),
        section(
            "Requests and connections",
            "Per second; with connect, each request has a connection of its own. More is better.",
            &bars(Metric::Requests)?,
        ),
        section(
            "Latency",
            "Lower is better. The further right, the rarer: at 99 %, one request in a hundred was slower.",
            &plots::latency(&grids, &report.curves, &modes)?,
        ),
        section(
            "CPU time",
            "Of the whole machine, the kernel's included. Less is better.",
            &bars(Metric::Cpu)?,
        ),
        section(
            "Memory",
            "Resident, of everything that makes the mesh. Less is better.",
            &plots::memory(&grids, &modes)?,
        ),
        section(
            "Start-up",
            "From a pod's start to its first answered request. Less is better.",
            &start,
        ),
        section(
            "Restart of the proxy",
            "Connections that were dropped. Less is better.",
            &bars(Metric::Dropped)?,
        ),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "What this mesh costs" }
                style { (PreEscaped(STYLE)) (PreEscaped(plot_style())) }
            }
            body {
                h1 { "What this mesh costs" }
                p.command { code { (report.command.line) } }
                (what_is_missing(&report.missing))
                @if !report.notes.is_empty() {
                    aside {
                        h2 { "To judge by" }
                        ul { @for note in &report.notes { li { (note) } } }
                    }
                }
                @if grids.is_empty() { p.nothing { (NOTHING) } }
                @if !grids.is_empty() {
                    p.how { "In plots: medians, with whiskers from the lower to the upper quartile of the rounds." }
                    (legend(&modes))
                }
                @for section in sections { (section) }
                @if !grids.is_empty() {
                    section {
                        h2 { "Figures" }
                        p { (LEGEND) }
                        @for grid in &grids { (table(grid)) }
                    }
                }
                section {
                    h2 { "How it was measured" }
                    table.facts {
                        @for (name, value) in facts(report) { tr { th { (name) } td { (value) } } }
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

/// Elsewhere the median is of latency, which has a plot of its own.
fn start_up<'a, 'b>(grids: &'b [Grid<'a>]) -> &'b [Grid<'a>] {
    let is_start_up = |grid: &Grid<'_>| grid.scenario == "startup";
    let start = grids.iter().position(is_start_up).unwrap_or(grids.len());
    let count = grids[start..]
        .iter()
        .take_while(|grid| is_start_up(grid))
        .count();
    &grids[start..start + count]
}

fn section(title: &str, what: &str, plots: &[Plot]) -> Markup {
    html! {
        @if !plots.is_empty() {
            section {
                h2 { (title) }
                p { (what) }
                div.plots {
                    @for plot in plots {
                        figure role="img" aria-label=(plot.title) {
                            figcaption { (plot.title) }
                            (PreEscaped(&plot.svg))
                        }
                    }
                }
            }
        }
    }
}

fn legend(modes: &[&str]) -> Markup {
    html! {
        ul.legend {
            @for mode in modes {
                @let style = format!("background:{}", hex(color(mode, modes)));
                li { span style=(style) {} (mode) }
            }
        }
    }
}

fn table(grid: &Grid<'_>) -> Markup {
    html! {
        h3 { (grid.title()) }
        div.wide {
            table {
                thead {
                    tr {
                        th { "mode" }
                        @for column in &grid.columns { th { (column.title()) } }
                    }
                }
                tbody { @for row in &grid.rows { (line(row)) } }
            }
        }
    }
}

fn line(row: &Row<'_>) -> Markup {
    html! {
        tr {
            th { (row.mode) }
            @if let Some(reason) = row.missing {
                td.missing colspan=(row.cells.len()) { "not measured: " (reason) }
            } @else {
                @for cell in &row.cells { (field(cell.as_ref())) }
            }
        }
    }
}

fn field(cell: Option<&Cell<'_>>) -> Markup {
    let Some(cell) = cell else {
        return html! { td { "—" } };
    };
    html! {
        td.best[cell.best] {
            (figure(cell.figure))
            @if let Some(ratio) = cell.ratio { br; span.ratio { (figure(ratio)) } }
        }
    }
}

fn what_is_missing(missing: &[Missing]) -> Markup {
    html! {
        @if !missing.is_empty() {
            aside {
                h2 { "What is missing" }
                ul {
                    @for one in missing {
                        @let scenario = one.scenario.as_deref().unwrap_or("everything");
                        li { b { (one.mode) } ", " (scenario) ": " (one.reason) }
                    }
                }
            }
        }
    }
}

/// Lets the plots' text and lines follow the page's colours, light or dark.
fn plot_style() -> String {
    let (text, grid) = (hex(TEXT), hex(GRID));
    format!(
        "svg [fill=\"{text}\"]{{fill:var(--text)}} svg [stroke=\"{text}\"]{{stroke:var(--text)}} \
         svg [stroke=\"{grid}\"]{{stroke:var(--line)}}"
    )
}
