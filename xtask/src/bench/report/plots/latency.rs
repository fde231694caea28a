//! Latency by percentile, the rare slow requests at large.

use anyhow::{Context, Result};
use plotters::{
    chart::ChartBuilder,
    element::{Circle, ErrorBar},
    series::LineSeries,
    style::{Color, FontStyle, text_anchor::HPos},
};

use super::{
    super::{
        super::{
            measurement::{Curve, Measurement, Metric, Unit},
            statistics::median,
        },
        grid::Grid,
    },
    GRID, Plot, color, label,
    scale::{self, Axis},
    svg,
};

const SIZE: (u32, u32) = (470, 330);

/// The quantiles that are measured, all of them known to the axis.
const QUANTILES: [(Metric, f64, &str); 4] = [
    (Metric::P50, 0.5, "50 %"),
    (Metric::P90, 0.9, "90 %"),
    (Metric::P99, 0.99, "99 %"),
    (Metric::P999, 0.999, "99.9 %"),
];

/// Every scenario and placement of `grids` that has a latency by percentile.
pub(in super::super) fn latency(
    grids: &[Grid<'_>],
    curves: &[Curve],
    modes: &[&str],
) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for grid in grids {
        let series = series(grid, curves);
        // A lone percentile, such as that of start-up, makes no curve.
        if series.iter().all(|series| series.marks.len() < 2) {
            continue;
        }
        let title = grid.title();
        let svg = plot(&series, modes).with_context(|| format!("cannot draw `{title}`"))?;
        plots.push(Plot { title, svg });
    }
    Ok(plots)
}

/// A mode's latency: x is the place of a quantile, y is in us.
struct Series<'a> {
    mode: &'a str,
    marks: Vec<(f64, &'a Measurement)>,
    line: Vec<(f64, f64)>,
}

fn series<'a>(grid: &Grid<'a>, curves: &[Curve]) -> Vec<Series<'a>> {
    let of_row = |row: &super::super::grid::Row<'a>| {
        let cells = || row.cells.iter().flatten().map(|cell| cell.figure);
        // No logarithm shows what took no time.
        let shown = |one: &Measurement| one.unit == Unit::Microseconds && one.low > 0.0;
        let marks: Vec<_> = QUANTILES
            .iter()
            .filter_map(|(metric, quantile, _)| {
                let figure = cells().find(|one| one.metric == *metric && shown(one))?;
                Some((place(*quantile), figure))
            })
            .collect();
        let rounds: Vec<_> = curves
            .iter()
            .filter(|curve| {
                (curve.mode.as_str(), curve.scenario.as_str()) == (row.mode, grid.scenario)
            })
            .filter(|curve| curve.placement == grid.placement)
            .collect();
        let line = if rounds.is_empty() {
            marks.iter().map(|(x, figure)| (*x, figure.value)).collect()
        } else {
            middle(&rounds)
        };
        Series {
            mode: row.mode,
            marks,
            line,
        }
    };
    let series = grid.rows.iter().map(of_row);
    series.filter(|series| !series.marks.is_empty()).collect()
}

/// The median of the rounds' curves at places that are equally far apart.
fn middle(rounds: &[&Curve]) -> Vec<(f64, f64)> {
    let places = (0..=60u32).map(|step| f64::from(step) * 0.05);
    let point = |x: f64| {
        let quantile = 1.0 - 10f64.powf(-x);
        let heights: Vec<f64> = rounds
            .iter()
            .filter_map(|curve| at(curve, quantile))
            .collect();
        let height = median(&heights);
        (height > 0.0).then_some((x, height))
    };
    places.filter_map(point).collect()
}

/// The latency that the share `quantile` of a round's requests didn't exceed.
fn at(curve: &Curve, quantile: f64) -> Option<f64> {
    // 0.999 by way of a logarithm is a hair more than 0.999.
    let reaches = |(share, _): &&(f64, f64)| *share >= quantile - 1e-9;
    curve
        .points
        .iter()
        .find(reaches)
        .map(|(_, latency)| *latency)
}

/// Each nine takes as much of the axis as the one before it.
fn place(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn plot(series: &[Series<'_>], modes: &[&str]) -> Result<String> {
    let heights = || {
        let marks = series.iter().flat_map(|one| &one.marks);
        let lines = series.iter().flat_map(|one| &one.line);
        marks
            .flat_map(|(_, one)| [one.low, one.high])
            .chain(lines.map(|(_, height)| *height))
    };
    let low = heights().fold(f64::INFINITY, f64::min) * 0.9;
    let high = heights().fold(0.0, f64::max) * 1.15;
    svg(SIZE, |area| {
        let places = QUANTILES
            .iter()
            .map(|(_, quantile, _)| place(*quantile))
            .collect();
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(68)
            .build_cartesian_2d(
                Axis::new(0.0..3.15, places, name),
                Axis::new(
                    low.log10()..high.log10(),
                    scale::logarithmic(low, high),
                    |height| scale::mark(10f64.powf(height)),
                ),
            )?;
        chart
            .configure_mesh()
            .light_line_style(GRID.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_desc("percentile of requests")
            .y_desc("latency, us (logarithmic)")
            .label_style(label(HPos::Center, FontStyle::Normal))
            .draw()?;
        for (index, one) in (0u32..).zip(series) {
            let color = color(one.mode, modes);
            let line = one.line.iter().map(|(x, y)| (*x, y.log10()));
            chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
            // Spreads at one percentile stand side by side.
            let shift = 0.035 * (f64::from(index) - (series.len() as f64 - 1.0) / 2.0);
            for (x, figure) in &one.marks {
                let [low, value, high] = [figure.low, figure.value, figure.high].map(f64::log10);
                let style = color.stroke_width(1).filled();
                let bar = ErrorBar::new_vertical(x + shift, low, value, high, style, 6);
                chart.draw_series([bar])?;
                chart.draw_series([Circle::new((x + shift, value), 3, color.filled())])?;
            }
        }
        Ok(())
    })
}

/// Of the percentile at a place.
fn name(x: f64) -> String {
    let found = QUANTILES
        .iter()
        .find(|(_, quantile, _)| (place(*quantile) - x).abs() < 1e-6);
    found.map_or_else(String::new, |(_, _, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_the_median_of_the_rounds_at_each_percentile() {
        let curve = |round, latencies: [f64; 3]| Curve {
            scenario: "round-trip-1".to_owned(),
            mode: "none".to_owned(),
            placement: None,
            round,
            points: [0.5, 0.99, 1.0].into_iter().zip(latencies).collect(),
        };
        let rounds = [
            curve(0, [10.0, 20.0, 30.0]),
            curve(1, [11.0, 21.0, 90.0]),
            curve(2, [19.0, 29.0, 39.0]),
        ];
        let line = middle(&rounds.iter().collect::<Vec<_>>());
        assert_eq!(line.first(), Some(&(0.0, 11.0)));
        assert_eq!(
            line.iter()
                .find(|(x, _)| (x - 2.0).abs() < 1e-9)
                .map(|it| it.1),
            Some(21.0)
        );
        assert_eq!(line.last().map(|it| it.1), Some(39.0));
    }
}
