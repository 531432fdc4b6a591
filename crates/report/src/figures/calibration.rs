use anyhow::Result;
use plotters::prelude::*;
use statistics::Bin;

use super::{Area, Chart, FAINT, INK, OURS, PAPER, text};

/// Accuracy by confidence: on the diagonal a model is as often right as it says.
pub fn reliability_diagram(bins: &[Option<Bin>]) -> Result<Chart> {
    let description = "Reliability diagram: accuracy of the answers by their confidence".to_owned();
    Chart::draw("reliability", description, (370, 340), |area| {
        let mut chart = square(area, (0.0, 1.0), "confidence", "accuracy")?;
        chart.draw_series([PathElement::new(vec![(0.0, 0.0), (1.0, 1.0)], INK.mix(0.5))])?;
        let width = 1.0 / bins.len() as f64;
        for (index, bin) in bins.iter().enumerate() {
            let Some(bin) = bin else { continue };
            // A bar of no height is none.
            if bin.accuracy == 0.0 {
                chart.draw_series([Circle::new((bin.confidence, 0.0), 3, OURS.filled())])?;
                continue;
            }
            let corners = [(index as f64 * width, 0.0), ((index + 1) as f64 * width, bin.accuracy)];
            chart.draw_series([Rectangle::new(corners, OURS.mix(0.3).filled())])?;
            chart.draw_series([Circle::new((bin.confidence, bin.accuracy), 3, OURS.filled())])?;
        }
        Ok(())
    })
}

/// Mean confidence and accuracy of images about which the annotators agreed more or less: `groups` of images with the ends of
/// their vote entropy in bits, their mean confidence and their accuracy.
pub fn confidence_and_votes(groups: &[([f64; 2], f64, f64)]) -> Result<Chart> {
    let description = "Confidence and accuracy by the entropy of the annotators' votes".to_owned();
    let highest = groups.last().map_or(1.0, |([_, to], _, _)| *to).max(0.1);
    Chart::draw("votes", description, (370, 340), |area| {
        let mut chart = square(area, (0.0, highest), "entropy of the votes, bits", "confidence, accuracy")?;
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

/// Axes from `from` to `to`, and from 0 to 1.
fn square<'a, 'b>(
    area: &'b Area<'a>,
    (from, to): (f64, f64),
    x: &str,
    y: &str,
) -> Result<
    ChartContext<
        'b,
        SVGBackend<'a>,
        Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
    >,
> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(from..to, 0.0..1.0)?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc(x)
        .y_desc(y)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| format!("{value:.1}"))
        .y_label_formatter(&|value| format!("{value:.1}"))
        .label_style(text(13))
        .axis_desc_style(text(13))
        .draw()?;
    Ok(chart)
}
