//! Every combination by itself: how it learned, what it confuses, how sure it is.

use anyhow::Result;
use statistics::{MeanInterval, reliability};

use crate::{
    curves::Curves,
    figures::{self, Chart},
    results::{AnsweredRun, Cell, Measure, Results},
    tables::{Table, percent},
};

/// What is told of every combination.
#[derive(Debug)]
pub struct Each {
    /// F1 of every class and the calibration error.
    pub classes: Table,
    /// A small chart for each combination: learning curves, confusions, calibration.
    pub charts: [Chart; 3],
}

impl Each {
    /// Of all combinations with runs.
    pub fn of(results: &Results) -> Result<Self> {
        let cells: Vec<&Cell> = results.evaluated().collect();
        let names: Vec<String> = cells.iter().map(|cell| cell.combination.to_string()).collect();
        let curves: Vec<Vec<Curves>> = cells.iter().map(|cell| curves(cell)).collect();
        let confusions: Vec<Vec<Vec<f64>>> = cells.iter().map(|cell| confusion(cell)).collect();
        let bins: Vec<_> = cells.iter().map(|cell| reliability(&answers(cell))).collect();
        let classes = class_names(results);
        Ok(Self {
            classes: f1_of_classes(&cells, &classes),
            charts: [
                figures::all_learning_curves(&names, &curves)?,
                figures::all_confusions(&names, &classes, &confusions),
                figures::all_reliability_diagrams(&names, &bins)?,
            ],
        })
    }
}

fn class_names(results: &Results) -> Vec<String> {
    let run = results.runs().next();
    run.map_or_else(Vec::new, |cell| cell.run.evaluation.test.classes.iter().map(|score| score.class.clone()).collect())
}

/// Those of every seed.
fn curves(cell: &Cell) -> Vec<Curves> {
    let read = |run: &AnsweredRun| match Curves::read(&run.run.folder) {
        Ok(curves) => Some(curves),
        Err(error) => {
            tracing::warn!("no learning curves of {}, seed {}: {error:#}", run.run.combination, run.run.seed);
            None
        }
    };
    cell.runs.values().filter_map(read).collect()
}

/// Which share of the test images of each class (rows) is taken for which, all seeds together.
fn confusion(cell: &Cell) -> Vec<Vec<f64>> {
    let mut sums: Vec<Vec<f64>> = Vec::new();
    for run in cell.runs.values() {
        let counts = &run.run.evaluation.test.confusion;
        sums.resize(counts.len(), vec![0.0; counts.len()]);
        for (sums, counts) in sums.iter_mut().zip(counts) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += *count as f64);
        }
    }
    for row in &mut sums {
        let total = row.iter().sum::<f64>().max(1.0);
        row.iter_mut().for_each(|sum| *sum /= total);
    }
    sums
}

/// Confidence and correctness of all answers of all seeds.
fn answers(cell: &Cell) -> Vec<(f64, bool)> {
    cell.runs.values().flat_map(AnsweredRun::confidences).collect()
}

fn f1_of_classes(cells: &[&Cell], classes: &[String]) -> Table {
    let titles: Vec<String> = classes.iter().map(|class| format!("{class} %")).collect();
    let mut columns = vec!["inputs", "seeds"];
    columns.extend(titles.iter().map(String::as_str));
    columns.extend(["macro F1 %", "ECE %"]);
    let mean = |cell: &Cell, of: &dyn Fn(&AnsweredRun) -> Option<f64>| {
        let values: Vec<f64> = cell.runs.values().filter_map(of).collect();
        percent(MeanInterval::of(&values).map(|mean| mean.mean))
    };
    let row = |cell: &&Cell| {
        let f1 = |class: usize| move |run: &AnsweredRun| Some(run.run.evaluation.test.classes.get(class)?.f1);
        let mut row = vec![cell.combination.to_string(), cell.runs.len().to_string()];
        row.extend((0..classes.len()).map(|class| mean(cell, &f1(class))));
        row.extend([mean(cell, &|run| Measure::MacroF1.of(run)), mean(cell, &AnsweredRun::calibration_error)]);
        row
    };
    let caption = "F1 of each class on the test images, their mean, and the expected calibration error (ECE); means over the seeds";
    Table::new("class_f1", caption, &columns, cells.iter().map(row).collect())
}
