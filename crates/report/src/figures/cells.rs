use anyhow::Result;
use plotters::prelude::*;

use super::{Axis, Chart, OURS, PAPER, rows};
use crate::results::{Cell, Measure, Results};

const ROW_PX: u32 = 19;

/// Test accuracy of every combination with its interval, and the paper's.
pub fn cells_beside_the_paper(results: &Results) -> Result<Option<Chart>> {
    let cells: Vec<&Cell> = results.cells.iter().filter(|cell| !cell.runs.is_empty() || cell.paper.is_some()).collect();
    let percent = |share: f64| 100.0 * share;
    let ends = cells.iter().flat_map(|cell| {
        let interval = cell.interval(Measure::Test).into_iter().flatten();
        interval.chain(cell.paper(Measure::Test)).map(percent)
    });
    let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), end| (low.min(end), high.max(end)));
    if cells.is_empty() || low > high || results.evaluated().next().is_none() {
        return Ok(None);
    }
    // At least one step of five, also where all are the same.
    let low = ((low / 5.0).floor() * 5.0).min(95.0);
    let high = ((high / 5.0).ceil() * 5.0).max(low + 5.0);
    let names: Vec<String> = cells.iter().rev().map(|cell| cell.combination.to_string()).collect();
    let has_paper = cells.iter().any(|cell| cell.paper.is_some());
    let beside = if has_paper { ", and the paper's" } else { "" };
    let description = format!("Test accuracy of {} combinations with 95% intervals{beside}", cells.len());
    let height = ROW_PX * cells.len() as u32 + 70;
    let chart = Chart::draw("cells", description, (760, height), |area| {
        let label = |value: &f64| format!("{value:.0}");
        let x = Axis { range: low..high, title: "test accuracy, %", labels: 11, label: &label };
        let mut chart = rows(area, &x, &names, 150)?;
        for (row, cell) in cells.iter().rev().enumerate() {
            let at = |share: f64| (percent(share), SegmentValue::CenterOf(row));
            if let (Some(mean), Some([from, to])) = (cell.mean(Measure::Test), cell.interval(Measure::Test)) {
                let line = ShapeStyle { color: OURS.to_rgba(), filled: false, stroke_width: 2 };
                chart.draw_series([PathElement::new(vec![at(from), at(to)], line)])?;
                chart.draw_series([Circle::new(at(mean.mean), 4, OURS.filled())])?;
            }
            if let Some(paper) = cell.paper(Measure::Test) {
                let line = ShapeStyle { color: PAPER.to_rgba(), filled: false, stroke_width: 2 };
                chart
                    .draw_series([EmptyElement::at(at(paper))
                        + Polygon::new(vec![(0, -5), (5, 0), (0, 5), (-5, 0)], line.filled())])?;
            }
        }
        Ok(())
    })?;
    Ok(Some(chart))
}
