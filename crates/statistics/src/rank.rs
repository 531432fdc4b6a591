use serde::{Deserialize, Serialize};
use statrs::distribution::ContinuousCDF as _;

use crate::interval::student;

/// Spearman's rank correlation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// From −1 to 1.
    pub rho: f64,
    /// Two-sided p: exact for up to 8 pairs, by Student's distribution for more.
    pub p: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Most pairs whose orders are all tried: 40,320 of them.
const MOST_PERMUTED: usize = 8;

/// Spearman's rank correlation of pairs (Spearman 1904, <https://doi.org/10.2307/1412159>), equal values sharing their
/// mean rank. None if there are fewer than three pairs, or all values of one side are equal.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    if pairs.len() < 3 {
        return None;
    }
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (first, mut second) = (ranks(&first), ranks(&second));
    let rho = pearson(&first, &second)?;
    let p = if pairs.len() <= MOST_PERMUTED {
        exact_p(rho, &first, &mut second)
    } else {
        let freedom = (pairs.len() - 2) as f64;
        let t = rho * (freedom / ((1.0 - rho) * (1.0 + rho)).max(f64::MIN_POSITIVE)).sqrt();
        2.0 * student(freedom).sf(t.abs())
    };
    Some(Correlation { rho, p, pairs: pairs.len() })
}

/// The share of all orders of `second` whose correlation with `first` is as far from zero as `rho`.
fn exact_p(rho: f64, first: &[f64], second: &mut [f64]) -> f64 {
    // Correlations that differ by rounding alone are equal.
    const TOLERANCE: f64 = 1e-9;
    let (mut as_far, mut all) = (0_u32, 0_u32);
    for_each_order(second, 0, &mut |order| {
        all += 1;
        as_far += u32::from(pearson(first, order).is_some_and(|other| other.abs() >= rho.abs() - TOLERANCE));
    });
    f64::from(as_far) / f64::from(all)
}

/// Calls `visit` with every order of the values from `fixed` on; leaves them as they were.
fn for_each_order(values: &mut [f64], fixed: usize, visit: &mut impl FnMut(&[f64])) {
    if fixed == values.len() {
        return visit(values);
    }
    for next in fixed..values.len() {
        values.swap(fixed, next);
        for_each_order(values, fixed + 1, visit);
        values.swap(fixed, next);
    }
}

/// Root of the mean squared difference of pairs; none without pairs.
pub fn rmse(pairs: &[(f64, f64)]) -> Option<f64> {
    let squares: f64 = pairs.iter().map(|(first, second)| (first - second).powi(2)).sum();
    (!pairs.is_empty()).then(|| (squares / pairs.len() as f64).sqrt())
}

/// The middle one of `values`, or the mean of the two in the middle; none without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => Some(sorted[middle]),
        _ => Some((sorted.get(middle.checked_sub(1)?)? + sorted[middle]) / 2.0),
    }
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
