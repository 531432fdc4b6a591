use sources::{Combination, Source};
use statistics::{MeanInterval, median, sign_flip_exact};

use super::Comparison;
use crate::results::{Cell, Measure, Results};

/// What adding a source to other inputs changes, over all contexts that have runs with and without it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Effect {
    /// The source.
    pub source: Source,
    /// The inputs to which it is added, and the change of test accuracy over the seeds that both have, as a share.
    pub contexts: Vec<(Combination, f64)>,
    /// The fewest and the most seeds of a context.
    pub seeds: [usize; 2],
    /// Mean of the changes, with Student's interval over the contexts.
    pub mean: MeanInterval,
    /// Median of the changes.
    pub median: f64,
    /// The mean without the context of [`weakest_input`] alone; none if there is no other.
    pub mean_without_weakest: Option<MeanInterval>,
    /// Two-sided p of the exact randomisation of their signs.
    pub p: f64,
    /// The same, adjusted by Holm's method for all tests of the report.
    pub adjusted_p: f64,
    /// Mean of the paper's changes in the same contexts.
    pub paper_mean: Option<f64>,
    /// The same without the change from FM4 alone, whose accuracy in the paper does not fit what FM4 holds.
    pub paper_mean_without_fm4: Option<f64>,
}

/// The single input of the lowest test accuracy, to which whatever is added may add more than it does elsewhere. None where
/// there are no two to choose from.
pub fn weakest_input(results: &Results) -> Option<Combination> {
    let single = results.evaluated().filter(|cell| cell.combination.len() == 1);
    let accuracies: Vec<(Combination, f64)> =
        single.filter_map(|cell| Some((cell.combination, cell.mean(Measure::Test)?.mean))).collect();
    let weakest = accuracies.iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
    weakest.filter(|_| accuracies.len() > 1).map(|(combination, _)| *combination)
}

impl Effect {
    /// Of `source`; none if there is no context.
    pub fn of(results: &Results, source: Source) -> Option<Self> {
        let pairs: Vec<(&Cell, &Cell, Comparison)> = results
            .evaluated()
            .filter(|cell| !cell.combination.contains(source))
            .filter_map(|without| {
                let with = results.cell(Combination::new(without.combination.iter().chain([source]))?)?;
                Some((without, with, Comparison::of(with, without)?))
            })
            .collect();
        let contexts: Vec<(Combination, f64)> =
            pairs.iter().map(|(without, _, compared)| (without.combination, compared.difference)).collect();
        let seeds = || pairs.iter().map(|(.., compared)| compared.seeds);
        let changes: Vec<f64> = contexts.iter().map(|(_, change)| *change).collect();
        let paper = |keep: &dyn Fn(Combination) -> bool| {
            let kept = pairs.iter().filter(|(without, ..)| keep(without.combination));
            let changes =
                kept.map(|(without, with, _)| Some(with.paper(Measure::Test)? - without.paper(Measure::Test)?));
            Some(MeanInterval::of(&changes.collect::<Option<Vec<f64>>>()?)?.mean)
        };
        let (fm4, weakest) = (Combination::new([Source::Fm4]), weakest_input(results));
        let others = contexts.iter().filter(|(without, _)| Some(*without) != weakest);
        let mean_without_weakest = MeanInterval::of(&others.map(|(_, change)| *change).collect::<Vec<_>>());
        let (mean, p) = (MeanInterval::of(&changes)?, sign_flip_exact(&changes)?);
        Some(Self {
            source,
            seeds: [seeds().min()?, seeds().max()?],
            mean,
            median: median(&changes)?,
            mean_without_weakest,
            p,
            adjusted_p: p,
            paper_mean: paper(&|_| true),
            paper_mean_without_fm4: paper(&|without| Some(without) != fm4),
            contexts,
        })
    }
}
