use statistics::{MeanInterval, PooledDeviation};

use crate::results::{Measure, Results};

/// How far another seed moves a run.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Spread {
    /// What is measured.
    pub measure: Measure,
    /// Combinations with several seeds.
    pub combinations: usize,
    /// Standard deviation of a run over the seeds, pooled over these combinations, as a share.
    pub pooled: PooledDeviation,
    /// The smallest and the largest of the single combinations, as shares.
    pub ends: [f64; 2],
}

impl Spread {
    /// Of everything that is measured; empty if no combination has several seeds.
    pub fn of(results: &Results) -> Vec<Self> {
        Measure::ALL.into_iter().filter_map(|measure| Self::of_measure(results, measure)).collect()
    }

    fn of_measure(results: &Results, measure: Measure) -> Option<Self> {
        let means = results.evaluated().filter_map(|cell| cell.mean(measure));
        let deviations: Vec<f64> = means.filter_map(|MeanInterval { deviation, .. }| deviation).collect();
        let smallest = deviations.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = deviations.iter().copied().fold(0.0, f64::max);
        let pooled = results.pooled(measure)?;
        Some(Self { measure, combinations: deviations.len(), pooled, ends: [smallest, largest] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::made_up::results;

    #[test]
    fn seeds_are_pooled_over_combinations() {
        // Deviations of 3 and 1 points with two and one degrees of freedom; a single seed says nothing.
        let thirds = [("fm1", 0, 470), ("fm1", 1, 500), ("fm1", 2, 530)];
        let others = [("fm2", 0, 700), ("fm2", 1, 714), ("fm3", 0, 900)];
        let results = results(1000, &[&thirds[..], &others[..]].concat());
        let all = Spread::of(&results);
        let test = all.iter().find(|spread| spread.measure == Measure::Test).unwrap();
        assert_eq!((test.combinations, test.pooled.freedom), (2, 3));
        let [smallest, largest] = test.ends;
        let expected = ((2.0 * 0.03_f64.powi(2) + 0.014_f64.powi(2) / 2.0) / 3.0).sqrt();
        assert!((test.pooled.deviation - expected).abs() < 1e-12, "{test:?}");
        assert!((smallest - 0.014 / 2.0_f64.sqrt()).abs() < 1e-12 && (largest - 0.03).abs() < 1e-12, "{test:?}");
    }
}
