use std::collections::BTreeSet;

use statistics::{MeanInterval, holm, sign_flip_exact};

use super::{Agreement, agreement};
use crate::results::{AnsweredRun, Cell, Measure, Results};

/// What a configuration of the study amounts to: a guess at what the paper did, or a step beyond it.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its overrides.
    pub name: String,
    /// Its figures, or why there are none.
    pub figures: Result<VariantFigures, String>,
}

/// Over the combinations that all configurations have.
#[derive(Clone, Debug)]
pub struct VariantFigures {
    /// How many these are.
    pub combinations: usize,
    /// How close it is to the paper; none where nothing is comparable.
    pub agreement: Option<[Agreement; 2]>,
    /// Means over the combinations, as shares: test accuracy, balanced accuracy, F1 of the classes.
    pub means: [Option<f64>; 3],
    /// What it changes; none of the study itself, and where no seed answers about the same test images with both.
    pub change: Option<Change>,
}

/// What a configuration changes of the study's test accuracy, which is taken seed by seed as a mean over the combinations.
#[derive(Clone, Debug)]
pub struct Change {
    /// As a share, with Student's interval over the seeds.
    pub mean: MeanInterval,
    /// Seeds with which it is more than nothing.
    pub raised: usize,
    /// Two-sided p of the exact randomisation of the seeds' signs; none with more seeds than can be tried.
    pub p: Option<f64>,
    /// The same, adjusted by Holm's method for all variants.
    pub adjusted_p: Option<f64>,
}

impl Variant {
    /// The study and its variants by their names, over the combinations that all of those with results have.
    pub fn compare(study: (&str, &Results), variants: &[(&str, Result<&Results, String>)]) -> Vec<Self> {
        let read = || variants.iter().filter_map(|(_, results)| results.as_ref().ok().copied()).chain([study.1]);
        let with_results = || read().filter(|results| results.evaluated().next().is_some());
        let is_common = |cell: &&Cell| with_results().all(|results| results.cell(cell.combination).is_some());
        let of = |results: &Results| {
            let cells = || results.evaluated().filter(is_common);
            let mean = |measure| {
                let values: Vec<f64> = cells().filter_map(|cell| Some(cell.mean(measure)?.mean)).collect();
                MeanInterval::of(&values).map(|found| found.mean)
            };
            let pairs = || cells().filter_map(|cell| Some((cell, study.1.cell(cell.combination)?)));
            VariantFigures {
                combinations: cells().count(),
                agreement: cells().any(|cell| cell.paper.is_some()).then(|| agreement(cells())),
                means: [Measure::Test, Measure::Balanced, Measure::MacroF1].map(mean),
                change: Change::of(&pairs().collect::<Vec<_>>()),
            }
        };
        let variant = |(name, results): &(&str, Result<&Results, String>)| Self {
            name: (*name).to_owned(),
            figures: results.as_ref().map(|results| of(results)).map_err(Clone::clone),
        };
        let itself = Self { name: study.0.to_owned(), figures: Ok(VariantFigures { change: None, ..of(study.1) }) };
        let mut all: Vec<Self> = [itself].into_iter().chain(variants.iter().map(variant)).collect();
        adjust(&mut all);
        all
    }
}

/// Holm's method over all changes that have a p.
fn adjust(variants: &mut [Variant]) {
    let changes = variants.iter_mut().filter_map(|variant| variant.figures.as_mut().ok()?.change.as_mut());
    let mut tested: Vec<&mut Change> = changes.filter(|change| change.p.is_some()).collect();
    let adjusted = holm(&tested.iter().filter_map(|change| change.p).collect::<Vec<_>>());
    tested.iter_mut().zip(adjusted).for_each(|(change, p)| change.adjusted_p = Some(p));
}

impl Change {
    /// From the study's cells, which come second, to others of the same combinations, with the seeds that all of them have.
    fn of(pairs: &[(&Cell, &Cell)]) -> Option<Self> {
        let cells = || pairs.iter().flat_map(|(cell, of_study)| [*cell, *of_study]);
        let seeds = cells().map(|cell| cell.runs.keys().copied().collect::<BTreeSet<u64>>());
        let seeds = seeds.reduce(|all, of_cell| all.intersection(&of_cell).copied().collect())?;
        let change = |seed: &u64| {
            let changes = pairs.iter().map(|(cell, of_study)| change_of_run(&cell.runs[seed], &of_study.runs[seed]));
            changes.sum::<Option<f64>>().map(|sum| sum / pairs.len() as f64)
        };
        let changes = seeds.iter().map(change).collect::<Option<Vec<f64>>>()?;
        let raised = changes.iter().filter(|change| **change > 0.0).count();
        Some(Self { mean: MeanInterval::of(&changes)?, raised, p: sign_flip_exact(&changes), adjusted_p: None })
    }
}

/// Of test accuracy as a share, from `before` to `after`; none if they were asked about other images, or about other labels of them.
fn change_of_run(after: &AnsweredRun, before: &AnsweredRun) -> Option<f64> {
    let (asked, asked_before) = (&after.answers, &before.answers);
    let is_same = asked.images == asked_before.images && asked.labels == asked_before.labels;
    is_same.then_some(Measure::Test.of(after)? - Measure::Test.of(before)?)
}
