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
    /// Accuracy of the first less that of the second, averaged over these seeds, as a share.
    pub difference: f64,
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
        if differences.iter().any(|one| one * difference < 0.0) {
            p = 1.0;
        }
        let (first, second) = (first.combination, second.combination);
        Some(Self { first, second, seeds: shared.len(), difference, p, adjusted_p: p })
    }
}
