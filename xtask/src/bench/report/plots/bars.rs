//! One figure of a scenario: a bar a mode, its spread on it.

use anyhow::{Context, Result};
use plotters::{
    chart::ChartBuilder,
    element::{ErrorBar, Rectangle},
    style::{Color, FontStyle, text_anchor::HPos},
};

use super::{
    super::{
        super::measurement::{Measurement, Metric},
        grid::Grid,
        text::number,
    },
    GRID, Plot, TEXT, color, label,
    scale::{self, Axis},
    svg, width,
};

/// Without the modes' names.
const WIDTH: u32 = 344;
const ROW: u32 = 24;
/// Margins and the axis with its title.
const AROUND: u32 = 56;

/// Every scenario of `grids` that has `metric`, each with all its placements.
pub(in super::super) fn bars(
    grids: &[Grid<'_>],
    modes: &[&str],
    metric: Metric,
) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for places in grids.chunk_by(|one, next| one.scenario == next.scenario) {
        let rows: Vec<Row<'_>> = places.iter().flat_map(|grid| rows(grid, metric)).collect();
        let Some(first) = rows.iter().find_map(Row::figure) else {
            continue;
        };
        let title = format!("{}: {metric}", first.scenario, metric = metric.name());
        let svg = plot(&rows, modes, first.unit.name())
            .with_context(|| format!("cannot draw `{title}`"))?;
        plots.push(Plot { title, svg });
    }
    Ok(plots)
}

enum Row<'a> {
    Heading(&'static str),
    Bar(&'a Measurement),
}

impl<'a> Row<'a> {
    fn figure(&self) -> Option<&'a Measurement> {
        match self {
            Row::Heading(_) => None,
            Row::Bar(figure) => Some(figure),
        }
    }
}

fn rows<'a>(grid: &Grid<'a>, metric: Metric) -> Vec<Row<'a>> {
    let cells = grid.rows.iter().flat_map(|row| row.cells.iter().flatten());
    let figures = cells
        .map(|cell| cell.figure)
        .filter(|figure| figure.metric == metric);
    let bars: Vec<_> = figures.map(Row::Bar).collect();
    let heading = grid.placement.filter(|_| !bars.is_empty());
    heading
        .map(|placement| Row::Heading(placement.name()))
        .into_iter()
        .chain(bars)
        .collect()
}

fn plot(rows: &[Row<'_>], modes: &[&str], unit: &str) -> Result<String> {
    let count = u32::try_from(rows.len()).context("too many rows")?;
    let ends = rows
        .iter()
        .filter_map(Row::figure)
        .map(|figure| figure.high.max(figure.value));
    // All of them may be 0, such as dropped connections; an axis has a length nevertheless.
    let max = Some(ends.fold(0.0, f64::max))
        .filter(|max| *max > 0.0)
        .unwrap_or(1.0);
    // The same in each plot, so that those below each other line up.
    let names = width(modes.iter().copied()) + 12;
    svg((WIDTH + names, count * ROW + AROUND), |area| {
        let top = f64::from(count);
        let mut chart = ChartBuilder::on(area)
            .margin_right(14)
            .margin_top(4)
            .margin_bottom(2)
            .set_left_and_bottom_label_area_size(44)
            .y_label_area_size(names)
            .build_cartesian_2d(
                // The figure itself stands right of its bar.
                Axis::new(0.0..max * 1.2, scale::linear(max * 1.2, 6), scale::mark),
                0.0..top,
            )?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .light_line_style(GRID.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_desc(unit)
            .label_style(label(HPos::Center, FontStyle::Normal))
            .draw()?;
        for (index, row) in (0u32..).zip(rows) {
            let middle = top - f64::from(index) - 0.5;
            let (left, height) = chart.backend_coord(&(0.0, middle));
            match row {
                Row::Heading(heading) => {
                    let style = label(HPos::Left, FontStyle::Bold);
                    area.draw_text(heading, &style, (4, height))?;
                }
                Row::Bar(figure) => {
                    let mode = label(HPos::Right, FontStyle::Normal);
                    area.draw_text(&figure.mode, &mode, (left - 8, height))?;
                    let corners = [(0.0, middle - 0.36), (figure.value, middle + 0.36)];
                    let fill = color(&figure.mode, modes).filled();
                    chart.draw_series([Rectangle::new(corners, fill)])?;
                    let Measurement {
                        low, value, high, ..
                    } = **figure;
                    chart.draw_series([ErrorBar::new_horizontal(
                        middle, low, value, high, TEXT, 8,
                    )])?;
                    let (end, _) = chart.backend_coord(&(high.max(value), middle));
                    let style = label(HPos::Left, FontStyle::Normal);
                    area.draw_text(&number(value), &style, (end + 8, height))?;
                }
            }
        }
        Ok(())
    })
}
