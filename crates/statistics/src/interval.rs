use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// 97.5% quantile of the standard normal distribution, for two-sided 95% intervals.
const Z_95: f64 = 1.959_963_984_540_054;

/// Wilson's 95% interval of a share of `correct` out of `all` (Wilson 1927,
/// <https://doi.org/10.1080/01621459.1927.10502953>). Anything from 0 to 1 if there are none at all.
pub fn wilson_95(correct: u64, all: u64) -> [f64; 2] {
    if all == 0 {
        return [0.0, 1.0];
    }
    let (n, p, z2) = (all as f64, correct as f64 / all as f64, Z_95 * Z_95);
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // Rounding may leave the ends of an interval that touches 0 or 1 a little outside.
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

/// Mean of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    /// How many there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with n − 1 below the line; none for a single one.
    pub deviation: Option<f64>,
    /// Student's 95% interval of the mean; none for a single one.
    pub interval_95: Option<[f64; 2]>,
}

impl MeanInterval {
    /// Of `values`; none if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        if count == 1 {
            return Some(Self { count, mean, deviation: None, interval_95: None });
        }
        let freedom = (count - 1) as f64;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom).sqrt();
        let half = student(freedom).inverse_cdf(0.975) * deviation / (count as f64).sqrt();
        Some(Self { count, mean, deviation: Some(deviation), interval_95: Some([mean - half, mean + half]) })
    }
}

/// A standard deviation that groups of repeated measurements have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PooledDeviation {
    /// Root of the mean of the groups' variances, each weighted by its degrees of freedom, n − 1.
    pub deviation: f64,
    /// Sum of these degrees of freedom.
    pub freedom: usize,
}

impl PooledDeviation {
    /// Of `groups`; a group of a single measurement says nothing of it. None if there are no others.
    pub fn of(groups: impl IntoIterator<Item = MeanInterval>) -> Option<Self> {
        let (mut squares, mut freedom) = (0.0, 0);
        for MeanInterval { count, deviation, .. } in groups {
            let Some(deviation) = deviation else { continue };
            squares += (count - 1) as f64 * deviation.powi(2);
            freedom += count - 1;
        }
        (freedom > 0).then(|| Self { deviation: (squares / freedom as f64).sqrt(), freedom })
    }

    /// How far one more measurement lies at most from the mean of `count` > 0 others, in 95 of 100 cases: half of Student's
    /// prediction interval (Hahn and Meeker 1991, <https://doi.org/10.1002/9780470316771>, chapter 4).
    pub fn half_prediction_95(&self, count: usize) -> f64 {
        student(self.freedom as f64).inverse_cdf(0.975) * self.deviation * (1.0 + 1.0 / count as f64).sqrt()
    }
}

/// Student's distribution with `freedom` > 0 degrees of freedom.
pub(crate) fn student(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom).expect("a positive number of degrees of freedom")
}
