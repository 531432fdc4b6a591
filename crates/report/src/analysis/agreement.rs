use sources::{Combination, Source};
use statistics::{Correlation, rmse, spearman};

use crate::results::{Cell, Measure};

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
