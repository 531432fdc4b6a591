//! Charts, drawn once: their colours are names, which the page's style sheet and files of their own replace.

mod calibration;
mod cells;
mod curves;
mod effects;
mod grid;

use anyhow::{Result, anyhow};
use plotters::{coord::Shift, prelude::*};
use resvg::{tiny_skia, usvg};
use sources::Source;

pub use calibration::{confidence_and_votes, reliability_diagram};
pub use cells::cells_beside_the_paper;
pub use curves::learning_curves;
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

/// Labels of axes and marks.
fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}
