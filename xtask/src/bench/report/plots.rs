//! The plots of `report.html`, as SVG without anything from outside.

use anyhow::{Context, Result};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    style::{
        FontStyle, IntoFont, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::super::measurement::BASELINE;

mod bars;
mod latency;
mod memory;
mod scale;

pub(super) use self::{bars::bars, latency::latency, memory::memory};

/// One plot.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) svg: String,
}

/// Text and axes, as on a light page; the page's style gives each plot's colours a dark one.
pub(super) const TEXT: RGBColor = RGBColor(0x1b, 0x1f, 0x24);

/// Lines behind the figures.
pub(super) const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);

/// Of the modes; readable on light and on dark, and apart for most who see few colours.
pub(super) fn color(mode: &str, modes: &[&str]) -> RGBColor {
    const OTHERS: [RGBColor; 3] = [
        RGBColor(0x9a, 0x7b, 0x00),
        RGBColor(0xa0, 0x52, 0x2d),
        RGBColor(0x8a, 0x56, 0xc8),
    ];
    match mode {
        BASELINE => RGBColor(0x7d, 0x85, 0x90),
        "ambit" => RGBColor(0x1f, 0x6f, 0xeb),
        "ambit-proxied" => RGBColor(0x4f, 0xa8, 0xd8),
        "ambit+waypoint" => RGBColor(0x2d, 0xa4, 0x4e),
        "sidecar-haproxy" => RGBColor(0xd9, 0x73, 0x0d),
        "sidecar-envoy" => RGBColor(0xc9, 0x3c, 0x8e),
        _ => {
            let place = modes.iter().position(|other| *other == mode);
            OTHERS[place.unwrap_or_default() % OTHERS.len()]
        }
    }
}

/// `#1f6feb`.
pub(super) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What `draw` draws on an area of `size` pixels.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present().context("cannot finish the plot")?;
    }
    // Within a page it means nothing, and a page that names no address visibly fetches none.
    Ok(svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

/// How many pixels the longest of `texts` takes as a label, rather more than fewer: nobody knows
/// the reader's font.
fn width<'a>(texts: impl IntoIterator<Item = &'a str>) -> u32 {
    let longest = texts.into_iter().map(|text| text.chars().count()).max();
    u32::try_from(longest.unwrap_or(0) * 8).unwrap_or(u32::MAX)
}

/// Of a label, anchored at its middle on the side that `horizontal` names.
fn label<'a>(horizontal: HPos, style: FontStyle) -> TextStyle<'a> {
    let font = ("sans-serif", 15).into_font().style(style);
    TextStyle::from(font)
        .color(&TEXT)
        .pos(Pos::new(horizontal, VPos::Center))
}
