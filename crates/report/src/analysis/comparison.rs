use sources::Combination;
use statistics::mcnemar_exact;

use crate::results::{Cell, EvaluatedCell};

/// Two combinations on the same test images.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    /// One.
    pub first: Combination,
    /// The other.
    pub second: Combination,
    /// Seeds that both have.
    pub seeds: usize,
    /// Accuracies of both over these seeds, as shares.
    pub accuracies: [f64; 2],
    /// The first less the second.
    pub difference: f64,
    /// Whether some of these seeds favour the first and some the second.
    pub seeds_disagree: bool,
    /// Two-sided p of McNemar's exact test: the largest over the seeds, so that a small one says that the difference shows
    /// with every seed.
    pub p: f64,
    /// The same, adjusted by Holm's method for all tests of the report.
    pub adjusted_p: f64,
}

impl Comparison {
    /// Compares what both have; none if they share no seed.
    pub fn of(first: &Cell, second: &Cell) -> Option<Self> {
        let shared: Vec<(&EvaluatedCell, &EvaluatedCell)> =
            first.runs.iter().filter_map(|(seed, run)| Some((run, second.runs.get(seed)?))).collect();
        if shared.is_empty() {
            return None;
        }
        let (mut differences, mut p) = (Vec::new(), 0.0_f64);
        for (a, b) in &shared {
            let alone = |one: &EvaluatedCell, other: &EvaluatedCell| {
                let pairs = one.correct.iter().zip(&other.correct);
                pairs.filter(|(one, other)| **one && !**other).count() as u64
            };
            let (only_first, only_second) = (alone(a, b), alone(b, a));
            differences.push((only_first as f64 - only_second as f64) / a.correct.len().max(1) as f64);
            p = p.max(mcnemar_exact(only_first, only_second));
        }
        let difference = differences.iter().sum::<f64>() / differences.len() as f64;
        // Seeds that point to opposite sides say together that there is no difference, however sure each is.
        let seeds_disagree = differences.iter().any(|one| *one > 0.0) && differences.iter().any(|one| *one < 0.0);
        if seeds_disagree {
            p = 1.0;
        }
        let share = |run: &EvaluatedCell| {
            run.correct.iter().filter(|correct| **correct).count() as f64 / run.correct.len().max(1) as f64
        };
        let mean = |shares: Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let accuracies = [
            mean(shared.iter().map(|(run, _)| share(run)).collect()),
            mean(shared.iter().map(|(_, run)| share(run)).collect()),
        ];
        let (first, second) = (first.combination, second.combination);
        Some(Self { first, second, seeds: shared.len(), accuracies, difference, seeds_disagree, p, adjusted_p: p })
    }
}
