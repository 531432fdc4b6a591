use anyhow::Result;
use plotters::prelude::*;

use super::{Axis, Chart, INK, OURS, PAPER, rows, source_colour};
use crate::analysis::Effect;

/// The change of test accuracy that each source makes in each context, its mean, and the paper's mean.
pub fn effects_of_sources(effects: &[Effect]) -> Result<Option<Chart>> {
    let points = |share: f64| 100.0 * share;
    let ends = effects.iter().flat_map(|effect| {
        let changes = effect.contexts.iter().map(|(_, change)| *change);
        changes.chain(effect.paper_mean).chain(effect.mean.interval_95.into_iter().flatten()).map(points)
    });
    let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(low, high), end| (low.min(end), high.max(end)));
    if effects.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = effects.iter().rev().map(|effect| effect.source.to_string()).collect();
    let description = "Change of test accuracy that each source makes when it is added to other inputs".to_owned();
    let height = 46 * effects.len() as u32 + 64;
    let chart = Chart::draw("effects", description, (760, height), |area| {
        let range = (low - 0.5).floor()..(high + 0.5).ceil();
        // Ticks of few points are at halves and tenths.
        let decimals = usize::from(range.end - range.start < 10.0);
        let label = |value: &f64| match format!("{value:+.decimals$}") {
            zero if zero[1..].chars().all(|digit| "0.".contains(digit)) => "0".to_owned(),
            other => other,
        };
        let x = Axis { range, title: "change of test accuracy, points", labels: 11, label: &label };
        let mut chart = rows(area, &x, &names, 60)?;
        let zero = [SegmentValue::Exact(0), SegmentValue::Last].map(|row| (0.0, row)).to_vec();
        chart.draw_series([PathElement::new(zero, INK)])?;
        for (row, effect) in effects.iter().rev().enumerate() {
            let at = |share: f64| (points(share), SegmentValue::CenterOf(row));
            let colour = source_colour(effect.source);
            for (_, change) in &effect.contexts {
                chart
                    .draw_series([EmptyElement::at(at(*change)) + Circle::new((0, 8), 3, colour.mix(0.55).filled())])?;
            }
            let line = ShapeStyle { color: OURS.to_rgba(), filled: false, stroke_width: 2 };
            if let Some([from, to]) = effect.mean.interval_95 {
                chart.draw_series([PathElement::new(vec![at(from), at(to)], line)])?;
            }
            chart.draw_series([Circle::new(at(effect.mean.mean), 5, OURS.filled())])?;
            if let Some(paper) = effect.paper_mean {
                chart
                    .draw_series([EmptyElement::at(at(paper))
                        + Polygon::new(vec![(0, -6), (6, 0), (0, 6), (-6, 0)], PAPER.filled())])?;
            }
        }
        Ok(())
    })?;
    Ok(Some(chart))
}
