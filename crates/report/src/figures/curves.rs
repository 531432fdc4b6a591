use anyhow::Result;
use plotters::prelude::*;
use sources::Combination;
use vit::StepRecord;

use super::{
    Axis, Chart, OURS, PAPER, Plane,
    panels::{panels, small_plane},
    plane,
};
use crate::curves::Curves;

/// Steps whose training loss is averaged for one point of the curve.
const POINTS: usize = 60;

/// Training loss, and accuracy on training and validation images, of one run.
pub fn learning_curves(combination: Combination, seed: u64, curves: &Curves) -> Result<Chart> {
    let description =
        format!("Learning curves of {combination}, seed {seed}: training loss, training and validation accuracy");
    let losses = training(curves, |step| step.loss);
    let highest = losses.iter().map(|(_, loss)| *loss).fold(0.1, f64::max);
    Chart::draw("curves", description, (760, 300), |area| {
        let (left, right) = area.split_horizontally(380);
        let tenths = |value: &f64| format!("{value:.1}");
        let steps = steps(last_step(curves));

        let loss = Axis { range: 0.0..highest * 1.05, title: "training loss, nats", labels: 6, label: &tenths };
        let mut chart = plane(&left, &steps, &loss)?;
        chart.draw_series(LineSeries::new(losses.iter().copied(), OURS.stroke_width(2)))?;

        let accuracy = Axis { range: 0.0..100.0, title: "accuracy, %", labels: 6, label: &whole };
        draw_accuracies(&mut plane(&right, &steps, &accuracy)?, curves, 2)
    })
}

/// Accuracy on training and validation images of the runs of each of the combinations `names`.
pub fn all_learning_curves(names: &[String], runs: &[Vec<Curves>]) -> Result<Chart> {
    let description =
        "Accuracy (%) on training and validation images by step, of every combination and seed".to_owned();
    let last = runs.iter().flatten().map(last_step).fold(1.0, f64::max);
    panels("all_curves", description, names, |index, area| {
        let mut chart = small_plane(area, &steps(last), &percent())?;
        runs[index].iter().try_for_each(|curves| draw_accuracies(&mut chart, curves, 1))
    })
}

/// What training says of itself, `POINTS` times: the step, and the mean of the steps since the point before.
fn training(curves: &Curves, of: fn(&StepRecord) -> f64) -> Vec<(f64, f64)> {
    let window = curves.steps.len().div_ceil(POINTS).max(1);
    let point = |steps: &[StepRecord]| {
        let value = steps.iter().map(of).sum::<f64>() / steps.len() as f64;
        (steps.last().map_or(0.0, |step| step.step as f64), value)
    };
    curves.steps.chunks(window).map(point).collect()
}

fn draw_accuracies(chart: &mut Plane<'_, '_>, curves: &Curves, width: u32) -> Result<()> {
    let train = training(curves, |step| 100.0 * step.accuracy);
    let valid: Vec<(f64, f64)> =
        curves.validations.iter().map(|record| (record.step as f64, 100.0 * record.validation.accuracy)).collect();
    chart.draw_series(LineSeries::new(train, OURS.stroke_width(width)))?;
    if valid.len() > 1 {
        chart.draw_series(LineSeries::new(valid.iter().copied(), PAPER.stroke_width(width)))?;
    }
    chart.draw_series(valid.iter().map(|point| Circle::new(*point, width + 1, PAPER.filled())))?;
    Ok(())
}

fn last_step(curves: &Curves) -> f64 {
    curves.steps.last().map_or(1.0, |step| step.step as f64)
}

fn steps(last: f64) -> Axis<'static> {
    Axis { range: 0.0..last, title: "step", labels: 5, label: &whole }
}

fn percent() -> Axis<'static> {
    Axis { range: 0.0..100.0, title: "", labels: 3, label: &whole }
}

fn whole(value: &f64) -> String {
    format!("{value:.0}")
}
