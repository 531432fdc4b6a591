use sources::Combination;
use statistics::mcnemar_exact;

use super::ALPHA;
use crate::results::{AnsweredRun, Cell};

/// Test images about which two runs of one seed differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Discordant {
    /// The seed of both.
    pub seed: u64,
    /// Images that only the first answers correctly.
    pub only_first: u64,
    /// Images that only the second answers correctly.
    pub only_second: u64,
}

/// Two combinations on the same test images.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    /// One.
    pub first: Combination,
    /// The other.
    pub second: Combination,
    /// Seeds that both have.
    pub seeds: usize,
    /// What they differ in with each of these seeds.
    pub discordant: Vec<Discordant>,
    /// Accuracies of both over these seeds, as shares.
    pub accuracies: [f64; 2],
    /// The first less the second.
    pub difference: f64,
    /// Whether some of these seeds favour the first and some the second.
    pub seeds_disagree: bool,
    /// Two-sided p of McNemar's exact test: the largest over the seeds, so that a small one says that the difference shows
    /// with every seed.
    pub p: f64,
    /// The same, adjusted by Holm's method for all tests of the report; none with a single seed, which tests nothing:
    /// McNemar's p knows the choice of images, not what another seed would change.
    pub adjusted_p: Option<f64>,
}

impl Comparison {
    /// Compares what both have; none if they share no seed.
    pub fn of(first: &Cell, second: &Cell) -> Option<Self> {
        let shared: Vec<(u64, &AnsweredRun, &AnsweredRun)> =
            first.runs.iter().filter_map(|(seed, run)| Some((*seed, run, second.runs.get(seed)?))).collect();
        if shared.is_empty() {
            return None;
        }
        let (mut differences, mut discordant, mut p) = (Vec::new(), Vec::new(), 0.0_f64);
        for (seed, a, b) in &shared {
            let (only_first, only_second) = (only(a, b), only(b, a));
            differences.push((only_first as f64 - only_second as f64) / a.correct.len().max(1) as f64);
            discordant.push(Discordant { seed: *seed, only_first, only_second });
            p = p.max(mcnemar_exact(only_first, only_second));
        }
        let difference = differences.iter().sum::<f64>() / differences.len() as f64;
        // Seeds that point to opposite sides say together that there is no difference, however sure each is.
        let seeds_disagree = differences.iter().any(|one| *one > 0.0) && differences.iter().any(|one| *one < 0.0);
        if seeds_disagree {
            p = 1.0;
        }
        let share = |run: &AnsweredRun| {
            run.correct.iter().filter(|correct| **correct).count() as f64 / run.correct.len().max(1) as f64
        };
        let mean = |shares: Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let accuracies = [
            mean(shared.iter().map(|(_, run, _)| share(run)).collect()),
            mean(shared.iter().map(|(_, _, run)| share(run)).collect()),
        ];
        let (first, second) = (first.combination, second.combination);
        let (seeds, adjusted_p) = (shared.len(), None);
        Some(Self { first, second, seeds, discordant, accuracies, difference, seeds_disagree, p, adjusted_p })
    }

    /// Whether the two are told apart.
    pub fn is_told(&self) -> bool {
        self.adjusted_p.is_some_and(|p| p < ALPHA)
    }
}

/// Images that `one` answers correctly and `other` does not.
fn only(one: &AnsweredRun, other: &AnsweredRun) -> u64 {
    let pairs = one.correct.iter().zip(&other.correct);
    pairs.filter(|(one, other)| **one && !**other).count() as u64
}
