use maud::html;

use super::Chart;
use crate::pictures::Picture;

const CELL_PX: usize = 112;
const GAP_PX: usize = 6;
const HEAD_PX: usize = 26;
const FOOT_PX: usize = 22;

/// Pictures in rows with a line of text below each row, and in columns with a title over each.
pub fn grid(name: &'static str, description: String, columns: &[String], rows: &[(String, Vec<&Picture>)]) -> Chart {
    let pitch = CELL_PX + GAP_PX;
    let (width, row_height) = (columns.len() * pitch + GAP_PX, CELL_PX + FOOT_PX + GAP_PX);
    let height = HEAD_PX + rows.len() * row_height;
    let left = |column: usize| GAP_PX + column * pitch;
    let svg = html! {
        svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } xmlns="http://www.w3.org/2000/svg"
            font-family="sans-serif" font-size="12" fill="#010000" {
            @for (column, title) in columns.iter().enumerate() {
                text x=(left(column) + CELL_PX / 2) y="17" text-anchor="middle" { (title) }
            }
            @for (row, (words, pictures)) in rows.iter().enumerate() {
                @let top = HEAD_PX + row * row_height;
                @for (column, picture) in pictures.iter().enumerate() {
                    image x=(left(column)) y=(top) width=(CELL_PX) height=(CELL_PX) href=(picture.data_url) {}
                }
                text x=(GAP_PX) y=(top + CELL_PX + 15) font-size="11" { (words) }
            }
        }
    };
    Chart { name, description, marked: svg.into_string() }
}
