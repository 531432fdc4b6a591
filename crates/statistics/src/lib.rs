//! What can be said from counts of correct answers and from repeated runs.
//!
//! Every routine is compared with scipy, statsmodels or scikit-learn in `tests/reference.rs`; `tests/reference.py` computes
//! their values.

mod calibration;
mod compare;
mod interval;
mod multiple;
mod rank;

pub use calibration::{BINS, Bin, expected_calibration_error, reliability};
pub use compare::{mcnemar_exact, sign_flip_exact};
pub use interval::{MeanInterval, PooledDeviation, wilson_95};
pub use multiple::holm;
pub use rank::{Correlation, median, rmse, spearman};
