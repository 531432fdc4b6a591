//! Charts, drawn once: their colours are names, which the page's style sheet and files of their own replace.

mod calibration;
mod cells;
mod confusion;
mod curves;
mod effects;
mod grid;
mod panels;

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::SegmentedCoord,
        types::{RangedCoordf64, RangedCoordusize},
    },
    prelude::*,
};
use resvg::{tiny_skia, usvg};
use sources::Source;

pub use calibration::{all_reliability_diagrams, confidence_and_votes, reliability_diagram};
pub use cells::cells_beside_the_paper;
pub use confusion::all_confusions;
pub use curves::{all_learning_curves, learning_curves};
pub use effects::effects_of_sources;
pub use grid::grid;

/// Where a chart is drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A role that a colour plays.
struct Role {
    /// What stands for it in the drawing: no chart uses such a colour otherwise.
    mark: RGBColor,
    /// Its CSS variable.
    variable: &'static str,
    /// Its colour on white.
    on_white: &'static str,
}

/// Text and axes.
const INK: RGBColor = RGBColor(1, 0, 0);
/// Grid lines.
const FAINT: RGBColor = RGBColor(2, 0, 0);
/// Our runs.
const OURS: RGBColor = RGBColor(3, 0, 0);
/// The paper's figures.
const PAPER: RGBColor = RGBColor(4, 0, 0);

const ROLES: [Role; 9] = [
    Role { mark: INK, variable: "--ink", on_white: "#1b1f24" },
    Role { mark: FAINT, variable: "--faint", on_white: "#dfe3e8" },
    Role { mark: OURS, variable: "--ours", on_white: "#0b62a4" },
    Role { mark: PAPER, variable: "--paper", on_white: "#c2570c" },
    Role { mark: source_colour(Source::Orig), variable: "--orig", on_white: "#6b7280" },
    Role { mark: source_colour(Source::Fm1), variable: "--fm1", on_white: "#b7791f" },
    Role { mark: source_colour(Source::Fm2), variable: "--fm2", on_white: "#0b62a4" },
    Role { mark: source_colour(Source::Fm3), variable: "--fm3", on_white: "#0f7b5f" },
    Role { mark: source_colour(Source::Fm4), variable: "--fm4", on_white: "#a8447d" },
];

/// The mark of a source's colour.
const fn source_colour(source: Source) -> RGBColor {
    RGBColor(5, source as u8, 0)
}

/// A drawing.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Name of its files.
    pub name: &'static str,
    /// What it shows, for those who cannot see it.
    pub description: String,
    marked: String,
}

impl Chart {
    /// Draws on an area of `size` in pixels.
    fn draw(
        name: &'static str,
        description: String,
        size: (u32, u32),
        draw: impl FnOnce(&Area<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut marked = String::new();
        {
            let area = SVGBackend::with_string(&mut marked, size).into_drawing_area();
            draw(&area)?;
            area.present()?;
        }
        Ok(Self { name, description, marked })
    }

    /// For the page: colours are its style sheet's, and the size is that of the place.
    pub fn inline(&self) -> String {
        let coloured = self.coloured(|role| format!("var({})", role.variable));
        let begin = coloured.find("<svg").unwrap_or_default();
        coloured[begin..].replacen("<svg ", "<svg role=\"img\" aria-label=\"\" ", 1).replacen(
            "aria-label=\"\"",
            &format!("aria-label=\"{}\"", escape(&self.description)),
            1,
        )
    }

    /// A file of its own, on white.
    pub fn svg(&self) -> String {
        let coloured = self.coloured(|role| role.on_white.to_owned());
        // Behind the opening tag, so that everything else is drawn over it.
        match coloured.find("<svg").and_then(|begin| Some(begin + coloured[begin..].find('>')? + 1)) {
            Some(at) => {
                format!("{}<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>{}", &coloured[..at], &coloured[at..])
            }
            None => coloured,
        }
    }

    /// The same as pixels, `scale` for each of the drawing's.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>> {
        let mut options = usvg::Options { font_family: "DejaVu Sans".to_owned(), ..usvg::Options::default() };
        let fonts = options.fontdb_mut();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        let tree = usvg::Tree::from_str(&self.svg(), &options)?;
        let size = tree.size().to_int_size().scale_by(scale).ok_or_else(|| anyhow!("{} has no size", self.name))?;
        let mut pixels =
            tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| anyhow!("{} has no size", self.name))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
        Ok(pixels.encode_png()?)
    }

    fn coloured(&self, colour: impl Fn(&Role) -> String) -> String {
        ROLES.iter().fold(self.marked.clone(), |svg, role| {
            let RGBColor(r, g, b) = role.mark;
            svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), &colour(role))
        })
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The label of a row: `names` from the bottom upwards, with a little space before the axis.
fn row_label(names: &[String], row: &SegmentValue<usize>) -> String {
    match row {
        SegmentValue::CenterOf(row) | SegmentValue::Exact(row) => {
            names.get(*row).map_or_else(String::new, |name| format!("{name}\u{a0}\u{a0}"))
        }
        SegmentValue::Last => String::new(),
    }
}

/// An axis: its ends, what it shows, how many labels it has, and what they say.
struct Axis<'a> {
    range: Range<f64>,
    title: &'a str,
    labels: usize,
    label: &'a dyn Fn(&f64) -> String,
}

/// A chart with one axis for values and a row for each of `names`, from the bottom upwards, which take `names_px` on the left.
fn rows<'a, 'b>(
    area: &'b Area<'a>,
    x: &Axis<'_>,
    names: &[String],
    names_px: u32,
) -> Result<ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, SegmentedCoord<RangedCoordusize>>>> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(names_px)
        .build_cartesian_2d(x.range.clone(), (0..names.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        // The coordinate ends in a tick without a row.
        .set_tick_mark_size(LabelAreaPosition::Left, 0)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc(x.title)
        .x_labels(x.labels)
        .x_label_formatter(x.label)
        .y_labels(names.len())
        .y_label_formatter(&|row| row_label(names, row))
        .label_style(text(13))
        .axis_desc_style(text(13))
        .draw()?;
    Ok(chart)
}

/// A chart with two axes for values.
type Plane<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Begins a chart with two axes for values.
fn plane<'a, 'b>(area: &'b Area<'a>, x: &Axis<'_>, y: &Axis<'_>) -> Result<Plane<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(x.range.clone(), y.range.clone())?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc(x.title)
        .y_desc(y.title)
        .x_labels(x.labels)
        .y_labels(y.labels)
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(text(13))
        .axis_desc_style(text(13))
        .draw()?;
    Ok(chart)
}

/// Labels of axes and marks.
fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}
