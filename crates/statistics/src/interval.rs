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

/// Student's distribution with `freedom` > 0 degrees of freedom.
pub(crate) fn student(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom).expect("a positive number of degrees of freedom")
}
