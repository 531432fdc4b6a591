use maud::html;

use super::{Chart, panels::COLUMNS};

/// Width and height of the square for two classes.
const SQUARE_PX: usize = 24;
/// Room for the classes' names on the left, and for the titles over the panels.
const NAMES_PX: usize = 72;
const TITLE_PX: usize = 20;
const GAP_PX: usize = 14;

/// The confusion matrix of each of the combinations `names`: shares of the images of each of the `classes` (rows) that are
/// taken for each (columns, in the same order), the darker the more.
pub fn all_confusions(names: &[String], classes: &[String], matrices: &[Vec<Vec<f64>>]) -> Chart {
    let side = classes.len() * SQUARE_PX;
    let pitch = (side + GAP_PX, side + TITLE_PX + GAP_PX);
    let (width, height) = (NAMES_PX + COLUMNS * pitch.0, names.len().div_ceil(COLUMNS).max(1) * pitch.1);
    let svg = html! {
        svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } xmlns="http://www.w3.org/2000/svg"
            font-family="sans-serif" font-size="11" fill="#010000" {
            @for (index, (name, matrix)) in names.iter().zip(matrices).enumerate() {
                @let (left, top) = (NAMES_PX + index % COLUMNS * pitch.0, TITLE_PX + index / COLUMNS * pitch.1);
                text x=(left + side / 2) y=(top - 6) text-anchor="middle" { (name) }
                @if index % COLUMNS == 0 {
                    @for (row, class) in classes.iter().enumerate() {
                        text x=(left - 6) y=(top + row * SQUARE_PX + 16) text-anchor="end" { (class) }
                    }
                }
                @for (row, shares) in matrix.iter().enumerate() {
                    @for (column, share) in shares.iter().enumerate() {
                        rect x=(left + column * SQUARE_PX) y=(top + row * SQUARE_PX) width=(SQUARE_PX) height=(SQUARE_PX)
                            fill="#030000" fill-opacity=(format!("{share:.3}")) {}
                    }
                }
                rect x=(left) y=(top) width=(side) height=(side) fill="none" stroke="#020000" {}
            }
        }
    };
    let description = format!(
        "Confusions of every combination, all seeds together: rows are the true classes, columns ({}) the answers",
        classes.join(", ")
    );
    Chart { name: "all_confusions", description, marked: svg.into_string() }
}
