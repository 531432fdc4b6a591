use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;
use statistics::Bin;

use super::{
    Axis, Chart, INK, OURS, PAPER, Plane,
    panels::{panels, small_plane},
    plane,
};

/// Accuracy by confidence: on the diagonal a model is as often right as it says.
pub fn reliability_diagram(bins: &[Option<Bin>]) -> Result<Chart> {
    let description = "Reliability diagram: accuracy of the answers by their confidence".to_owned();
    Chart::draw("reliability", description, (370, 340), |area| {
        draw_bins(&mut plane(area, &tenths(0.0..1.0, "confidence"), &tenths(0.0..1.0, "accuracy"))?, bins, 3)
    })
}

/// The same for each of the combinations `names`.
pub fn all_reliability_diagrams(names: &[String], bins: &[Vec<Option<Bin>>]) -> Result<Chart> {
    let description =
        "Accuracy of the answers by their confidence, of every combination, all seeds together".to_owned();
    panels("all_reliabilities", description, names, |index, area| {
        let axis = || Axis { labels: 3, ..tenths(0.0..1.0, "") };
        draw_bins(&mut small_plane(area, &axis(), &axis())?, &bins[index], 1)
    })
}

fn draw_bins(chart: &mut Plane<'_, '_>, bins: &[Option<Bin>], radius: u32) -> Result<()> {
    chart.draw_series([PathElement::new(vec![(0.0, 0.0), (1.0, 1.0)], INK.mix(0.5))])?;
    let width = 1.0 / bins.len() as f64;
    for (index, bin) in bins.iter().enumerate() {
        let Some(bin) = bin else { continue };
        // A bar of no height is none.
        if bin.accuracy > 0.0 {
            let corners = [(index as f64 * width, 0.0), ((index + 1) as f64 * width, bin.accuracy)];
            chart.draw_series([Rectangle::new(corners, OURS.mix(0.3).filled())])?;
        }
        chart.draw_series([Circle::new((bin.confidence, bin.accuracy), radius, OURS.filled())])?;
    }
    Ok(())
}

/// Mean confidence and accuracy of images about which the annotators agreed more or less: `groups` of images with the ends of
/// their vote entropy in bits, their mean confidence and their accuracy.
pub fn confidence_and_votes(groups: &[([f64; 2], f64, f64)]) -> Result<Chart> {
    let description = "Confidence and accuracy by the entropy of the annotators' votes".to_owned();
    let highest = groups.last().map_or(1.0, |([_, to], _, _)| *to).max(0.1);
    Chart::draw("votes", description, (370, 340), |area| {
        let mut chart = plane(
            area,
            &tenths(0.0..highest, "entropy of the votes, bits"),
            &tenths(0.0..1.0, "confidence, accuracy"),
        )?;
        let middle = |[from, to]: [f64; 2]| 0.5 * (from + to);
        for (colour, of) in [(OURS, 0), (PAPER, 1)] {
            let line: Vec<(f64, f64)> = groups
                .iter()
                .map(|(ends, confidence, accuracy)| (middle(*ends), if of == 0 { *confidence } else { *accuracy }))
                .collect();
            chart.draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?;
            chart.draw_series(line.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        Ok(())
    })
}

/// An axis with tenths.
fn tenths(range: Range<f64>, title: &str) -> Axis<'_> {
    Axis { range, title, labels: 6, label: &|value| format!("{value:.1}") }
}
