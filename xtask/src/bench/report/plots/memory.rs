//! Memory against the number of pods, with the line that it makes.

use anyhow::{Context, Result};
use plotters::{
    chart::ChartBuilder,
    element::{Circle, ErrorBar, PathElement},
    series::{DashedLineSeries, LineSeries},
    style::{Color, FontStyle, text_anchor::HPos},
};

use super::{
    super::{
        super::{
            measurement::{Measurement, Metric},
            statistics::{Line, MANY_PODS},
        },
        grid::{Grid, Row},
        text::number,
    },
    GRID, Plot, color, label,
    scale::{self, Axis},
    svg, width,
};

/// Without what stands at the ends of the lines.
const SIZE: (u32, u32) = (740, 400);
/// From a line's end to its text.
const GAP: i32 = 28;
/// Names are at least so many pixels apart.
const LINE: i32 = 19;

/// Every scenario of `grids` that counts memory by pods.
pub(in super::super) fn memory(grids: &[Grid<'_>], modes: &[&str]) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for grid in grids {
        let series: Vec<_> = grid.rows.iter().filter_map(series).collect();
        if series.is_empty() {
            continue;
        }
        let title = format!("{}: resident, by pods", grid.title());
        let svg = plot(&series, modes).with_context(|| format!("cannot draw `{title}`"))?;
        plots.push(Plot { title, svg });
    }
    Ok(plots)
}

/// A mode's memory, by rising number of pods.
struct Series<'a> {
    mode: &'a str,
    points: Vec<(f64, &'a Measurement)>,
}

impl Series<'_> {
    /// What stands at the end of its line, its mode, and where that is.
    fn end(&self) -> Option<(String, &str, (f64, f64))> {
        let (pods, figure) = self.points.last()?;
        let text = format!("{} {} MiB", self.mode, number(figure.value));
        Some((text, self.mode, (*pods, figure.value)))
    }

    fn measured(&self) -> Vec<(f64, f64)> {
        let measured = self.points.iter().filter(|(_, one)| !one.extrapolated);
        measured.map(|(pods, one)| (*pods, one.value)).collect()
    }

    /// From the fewest pods to those that weren't measured, if there are such.
    fn line(&self) -> Option<[(f64, f64); 2]> {
        let (pods, end) = self.points.iter().find(|(_, one)| one.extrapolated)?;
        let measured = self.measured();
        let (start, _) = *measured.first()?;
        Some([
            (start, Line::through(&measured)?.at(start)),
            (*pods, end.value),
        ])
    }
}

fn series<'a>(row: &Row<'a>) -> Option<Series<'a>> {
    let figures = row.cells.iter().flatten().map(|cell| cell.figure);
    let resident = figures.filter(|one| one.metric == Metric::Resident);
    let mut points: Vec<_> = resident
        .filter_map(|one| Some((f64::from(one.pods?), one)))
        .collect();
    points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    (!points.is_empty()).then_some(Series {
        mode: row.mode,
        points,
    })
}

fn plot(series: &[Series<'_>], modes: &[&str]) -> Result<String> {
    let points = || series.iter().flat_map(|one| &one.points);
    let high = points().map(|(_, one)| one.high).fold(1.0, f64::max) * 1.06;
    let most = points()
        .map(|(pods, _)| *pods)
        .fold(f64::from(MANY_PODS), f64::max);
    let ends: Vec<_> = series.iter().filter_map(Series::end).collect();
    let names = width(ends.iter().map(|(text, ..)| text.as_str())) + GAP.unsigned_abs();
    svg((SIZE.0 + names, SIZE.1), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(names)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(
                Axis::new(0.0..most * 1.02, scale::linear(most, 5), scale::mark),
                Axis::new(0.0..high, scale::linear(high, 6), scale::mark),
            )?;
        chart
            .configure_mesh()
            .light_line_style(GRID.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_desc("pods in the mesh (dashed: extrapolated)")
            .y_desc("resident memory, MiB")
            .label_style(label(HPos::Center, FontStyle::Normal))
            .draw()?;
        for one in series {
            let color = color(one.mode, modes);
            chart.draw_series(LineSeries::new(one.measured(), color.stroke_width(2)))?;
            let line = one.line().into_iter().flatten();
            chart.draw_series(DashedLineSeries::new(line, 7, 5, color.stroke_width(2)))?;
            for (pods, figure) in &one.points {
                let Measurement {
                    low,
                    value,
                    high,
                    extrapolated,
                    ..
                } = **figure;
                let bar = ErrorBar::new_vertical(*pods, low, value, high, color.filled(), 8);
                chart.draw_series([bar])?;
                let style = if extrapolated {
                    color.into()
                } else {
                    color.filled()
                };
                chart.draw_series([Circle::new((*pods, value), 4, style)])?;
            }
        }
        let places = ends.iter().map(|(_, _, point)| chart.backend_coord(point));
        let places: Vec<_> = places.collect();
        let heights = apart(&places.iter().map(|(_, y)| *y).collect::<Vec<_>>());
        for (((text, mode, _), (x, y)), height) in ends.iter().zip(places).zip(heights) {
            let leader = vec![(x + 7, y), (x + GAP - 4, height)];
            area.draw(&PathElement::new(leader, color(mode, modes)))?;
            let style = label(HPos::Left, FontStyle::Normal);
            area.draw_text(text, &style, (x + GAP, height))?;
        }
        Ok(())
    })
}

/// Each height, moved up as far as it takes for them to be [`LINE`] apart.
fn apart(heights: &[i32]) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(heights[*index]));
    let mut moved = heights.to_vec();
    let mut limit = i32::MAX;
    for index in order {
        moved[index] = moved[index].min(limit);
        limit = moved[index] - LINE;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_do_not_overlap() {
        let table: [(&[i32], &[i32]); 3] = [
            (&[], &[]),
            (&[300, 100], &[300, 100]),
            (
                &[300, 299, 305, 100],
                &[305 - LINE, 305 - 2 * LINE, 305, 100],
            ),
        ];
        for (heights, expected) in table {
            assert_eq!(apart(heights), expected);
        }
    }
}
