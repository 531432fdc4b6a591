use sources::{Combination, Source};
use statistics::{Correlation, MeanInterval, rmse, spearman};

use crate::results::{Cell, Measure, Results};

/// How close our test accuracies are to the paper's.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Agreement {
    /// Which cells.
    pub cells: &'static str,
    /// How many of them there are on both sides.
    pub count: usize,
    /// Of their order; none if there are too few.
    pub spearman: Option<Correlation>,
    /// Root of the mean squared difference, as a share.
    pub rmse: Option<f64>,
}

/// Over all cells, and over all but FM4 alone: the paper's accuracy of it does not fit what FM4 holds.
pub fn agreement<'a>(cells: impl Iterator<Item = &'a Cell>) -> [Agreement; 2] {
    let pair = |cell: &Cell| Some((cell.paper(Measure::Test)?, cell.mean(Measure::Test)?.mean));
    let pairs: Vec<(Combination, (f64, f64))> =
        cells.filter_map(|cell| Some((cell.combination, pair(cell)?))).collect();
    let fm4 = Combination::new([Source::Fm4]);
    let of = |name, keep: &dyn Fn(Combination) -> bool| {
        let kept: Vec<(f64, f64)> =
            pairs.iter().filter(|(combination, _)| keep(*combination)).map(|(_, pair)| *pair).collect();
        Agreement { cells: name, count: kept.len(), spearman: spearman(&kept), rmse: rmse(&kept) }
    };
    [of("all cells", &|_| true), of("without fm4 alone", &|combination| Some(combination) != fm4)]
}

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
}

impl Variant {
    /// All configurations by their names, over the combinations that all of those with results have.
    pub fn compare(all: &[(&str, Result<&Results, String>)]) -> Vec<Self> {
        let with_results = || {
            let read = all.iter().filter_map(|(_, results)| results.as_ref().ok());
            read.filter(|results| results.evaluated().next().is_some())
        };
        let is_common = |cell: &&Cell| with_results().all(|results| results.cell(cell.combination).is_some());
        let of = |results: &Results| {
            let cells = || results.evaluated().filter(is_common);
            let mean = |measure| {
                let values: Vec<f64> = cells().filter_map(|cell| Some(cell.mean(measure)?.mean)).collect();
                MeanInterval::of(&values).map(|found| found.mean)
            };
            VariantFigures {
                combinations: cells().count(),
                agreement: cells().any(|cell| cell.paper.is_some()).then(|| agreement(cells())),
                means: [Measure::Test, Measure::Balanced, Measure::MacroF1].map(mean),
            }
        };
        let variant = |(name, results): &(&str, Result<&Results, String>)| Self {
            name: (*name).to_owned(),
            figures: results.as_ref().map(|results| of(results)).map_err(Clone::clone),
        };
        all.iter().map(variant).collect()
    }
}
