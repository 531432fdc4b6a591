//! Small charts of one scale beside each other, so that what differs is seen at a glance.

use anyhow::Result;
use plotters::prelude::*;

use super::{Area, Axis, Chart, FAINT, INK, Plane, text};

/// Panels in a row.
pub(super) const COLUMNS: usize = 4;

/// Width and height of a panel.
const PANEL_PX: (u32, u32) = (190, 160);

/// One panel for each of `names`, which stand over them; `draw` has its number and area.
pub(super) fn panels(
    name: &'static str,
    description: String,
    names: &[String],
    draw: impl Fn(usize, &Area<'_>) -> Result<()>,
) -> Result<Chart> {
    let rows = names.len().div_ceil(COLUMNS).max(1);
    let size = (PANEL_PX.0 * COLUMNS as u32, PANEL_PX.1 * rows as u32);
    Chart::draw(name, description, size, |area| {
        let areas = area.split_evenly((rows, COLUMNS));
        for ((index, name), area) in names.iter().enumerate().zip(areas) {
            draw(index, &area.titled(name, text(12))?)?;
        }
        Ok(())
    })
}

/// A chart with two axes for values and without their titles.
pub(super) fn small_plane<'a, 'b>(area: &'b Area<'a>, x: &Axis<'_>, y: &Axis<'_>) -> Result<Plane<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin_right(14)
        .x_label_area_size(20)
        .y_label_area_size(34)
        .build_cartesian_2d(x.range.clone(), y.range.clone())?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .set_all_tick_mark_size(2)
        .x_labels(x.labels.min(3))
        .y_labels(y.labels.min(3))
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(text(11))
        .draw()?;
    Ok(chart)
}
