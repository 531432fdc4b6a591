use anyhow::Result;
use plotters::prelude::*;
use sources::Combination;

use super::{Axis, Chart, OURS, PAPER, plane};
use crate::curves::Curves;

/// Steps whose training loss is averaged for one point of the curve.
const POINTS: usize = 60;

/// Training loss, and accuracy on training and validation images, of one run.
pub fn learning_curves(combination: Combination, seed: u64, curves: &Curves) -> Result<Chart> {
    let description =
        format!("Learning curves of {combination}, seed {seed}: training loss, training and validation accuracy");
    let window = curves.steps.len().div_ceil(POINTS).max(1);
    let mean = |of: fn(&vit::StepRecord) -> f64| -> Vec<(f64, f64)> {
        let point = |steps: &[vit::StepRecord]| {
            let value = steps.iter().map(of).sum::<f64>() / steps.len() as f64;
            (steps.last().map_or(0.0, |step| step.step as f64), value)
        };
        curves.steps.chunks(window).map(point).collect()
    };
    let (losses, train) = (mean(|step| step.loss), mean(|step| 100.0 * step.accuracy));
    let valid: Vec<(f64, f64)> =
        curves.validations.iter().map(|record| (record.step as f64, 100.0 * record.validation.accuracy)).collect();
    let last = curves.steps.last().map_or(1.0, |step| step.step as f64);
    let highest = losses.iter().map(|(_, loss)| *loss).fold(0.1, f64::max);
    Chart::draw("curves", description, (760, 300), |area| {
        let (left, right) = area.split_horizontally(380);
        let whole = |value: &f64| format!("{value:.0}");
        let tenths = |value: &f64| format!("{value:.1}");
        let steps = Axis { range: 0.0..last, title: "step", labels: 5, label: &whole };

        let loss = Axis { range: 0.0..highest * 1.05, title: "training loss, nats", labels: 6, label: &tenths };
        let mut chart = plane(&left, &steps, &loss)?;
        chart.draw_series(LineSeries::new(losses.iter().copied(), OURS.stroke_width(2)))?;

        let accuracy = Axis { range: 0.0..100.0, title: "accuracy, %", labels: 6, label: &whole };
        let mut chart = plane(&right, &steps, &accuracy)?;
        chart.draw_series(LineSeries::new(train.iter().copied(), OURS.stroke_width(2)))?;
        if valid.len() > 1 {
            chart.draw_series(LineSeries::new(valid.iter().copied(), PAPER.stroke_width(2)))?;
        }
        chart.draw_series(valid.iter().map(|point| Circle::new(*point, 3, PAPER.filled())))?;
        Ok(())
    })
}
