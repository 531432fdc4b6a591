use serde::{Deserialize, Serialize};
use statrs::distribution::ContinuousCDF as _;

use crate::interval::student;

/// Spearman's rank correlation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// From −1 to 1.
    pub rho: f64,
    /// Two-sided p by Student's distribution.
    pub p: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Spearman's rank correlation of pairs (Spearman 1904, <https://doi.org/10.2307/1412159>), equal values sharing their
/// mean rank. None if there are fewer than three pairs, or all values of one side are equal.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    if pairs.len() < 3 {
        return None;
    }
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let rho = pearson(&ranks(&first), &ranks(&second))?;
    let freedom = (pairs.len() - 2) as f64;
    let t = rho * (freedom / ((1.0 - rho) * (1.0 + rho)).max(f64::MIN_POSITIVE)).sqrt();
    Some(Correlation { rho, p: 2.0 * student(freedom).sf(t.abs()), pairs: pairs.len() })
}

/// Root of the mean squared difference of pairs; none without pairs.
pub fn rmse(pairs: &[(f64, f64)]) -> Option<f64> {
    let squares: f64 = pairs.iter().map(|(first, second)| (first - second).powi(2)).sum();
    (!pairs.is_empty()).then(|| (squares / pairs.len() as f64).sqrt())
}

/// Ranks from 1, equal values sharing their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count();
    let equal = |value: f64| values.iter().filter(|other| **other == value).count();
    values.iter().map(|value| below(*value) as f64 + (equal(*value) + 1) as f64 / 2.0).collect()
}

fn pearson(first: &[f64], second: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_first, mean_second) = (mean(first), mean(second));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        first.iter().zip(second).map(|(a, b)| of(a - mean_first, b - mean_second)).sum()
    };
    let (shared, squares) = (sum(&|a, b| a * b), sum(&|a, _| a * a) * sum(&|_, b| b * b));
    (squares > 0.0).then(|| (shared / squares.sqrt()).clamp(-1.0, 1.0))
}
