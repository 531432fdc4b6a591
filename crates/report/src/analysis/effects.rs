use sources::{Combination, Source};
use statistics::{MeanInterval, sign_flip_exact};

use crate::results::{Cell, Measure, Results};

/// What adding a source to other inputs changes, over all contexts that have runs with and without it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Effect {
    /// The source.
    pub source: Source,
    /// The inputs to which it is added, and the change of test accuracy, as a share.
    pub contexts: Vec<(Combination, f64)>,
    /// Mean of the changes, with Student's interval over the contexts.
    pub mean: MeanInterval,
    /// Two-sided p of the exact randomisation of their signs.
    pub p: f64,
    /// Mean of the paper's changes in the same contexts.
    pub paper_mean: Option<f64>,
}

impl Effect {
    /// Of `source`; none if there is no context.
    pub fn of(results: &Results, source: Source) -> Option<Self> {
        let ours = changes(results, source, &|cell| Some(cell.mean(Measure::Test)?.mean));
        let changed: Vec<f64> = ours.iter().map(|(_, change)| *change).collect();
        let paper: Vec<f64> =
            changes(results, source, &|cell| cell.paper(Measure::Test)).into_iter().map(|(_, change)| change).collect();
        let paper_mean =
            (paper.len() == ours.len()).then(|| MeanInterval::of(&paper)).flatten().map(|found| found.mean);
        let (mean, p) = (MeanInterval::of(&changed)?, sign_flip_exact(&changed)?);
        Some(Self { source, contexts: ours, mean, p, paper_mean })
    }
}

/// The change that `source` makes to what `accuracy` says, in every context that has runs with and without it.
fn changes(results: &Results, source: Source, accuracy: &dyn Fn(&Cell) -> Option<f64>) -> Vec<(Combination, f64)> {
    let change = |without: &Cell| {
        let with = Combination::new(without.combination.iter().chain([source]))?;
        Some((without.combination, accuracy(results.cell(with)?)? - accuracy(without)?))
    };
    results.evaluated().filter(|cell| !cell.combination.contains(source)).filter_map(change).collect()
}
