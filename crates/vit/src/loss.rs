//! Shapes: B batch, K classes.

use candle_core::{D, DType, Tensor};

use crate::{VitError, error::check_shape, layers::log_softmax};

/// Loss of a batch and how many of its images are classified correctly.
#[derive(Debug)]
pub struct Loss {
    /// Mean of the images' weighted cross-entropies in nats, a scalar with a gradient.
    pub mean: Tensor,
    /// Images whose most probable class is that of the target.
    pub correct: usize,
}

/// Cross-entropy of `logits` (B, K) against the probabilities `targets` (B, K), of which `smoothing` is
/// spread evenly over the classes (Szegedy et al. 2016, section 7, <https://arxiv.org/abs/1512.00567>). Each image counts by
/// its weight in `weights` (B), or all alike if there are none.
///
/// # Errors
/// If the two shapes differ.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, weights: &[f32], smoothing: f64) -> Result<Loss, VitError> {
    check_shape(targets, logits.dims(), || "the target tensor".to_owned())?;
    let (batch, classes) = logits.dims2()?;
    let targets = targets.to_dtype(logits.dtype())?;
    let smoothed = targets.affine(1.0 - smoothing, smoothing / classes as f64)?; // (B, K)
    let mut log_likelihood = (log_softmax(logits)? * smoothed)?; // (B, K)
    if !weights.is_empty() {
        let weights = Tensor::from_slice(weights, (batch, 1), logits.device())?.to_dtype(logits.dtype())?;
        log_likelihood = log_likelihood.broadcast_mul(&weights)?;
    }
    let mean = (log_likelihood.sum_all()? / -(batch as f64))?;
    let hits = logits.argmax(D::Minus1)?.eq(&targets.argmax(D::Minus1)?)?; // (B)
    // Counted in u32: a sum of bytes overflows above 255 images.
    let correct = hits.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()? as usize;
    Ok(Loss { mean, correct })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn soft_targets_follow_the_formula() {
        let logits = [[0.5f64, -1.0, 2.0], [3.0, 0.0, 1.0]];
        let targets = [[0.2f64, 0.3, 0.5], [0.1, 0.9, 0.0]];
        let (smoothing, weights) = (0.1, [0.5f32, 3.0]);
        let mut expected = 0.0;
        let mut gradient = Vec::new();
        for ((logits, targets), weight) in logits.iter().zip(&targets).zip(weights.map(f64::from)) {
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            for (logit, target) in logits.iter().zip(targets) {
                let smoothed = target * (1.0 - smoothing) + smoothing / 3.0;
                expected -= weight * smoothed * (logit.exp() / total).ln() / 2.0;
                gradient.push(weight * (logit.exp() / total - smoothed) / 2.0);
            }
        }
        let logits = Var::new(&logits, &Device::Cpu).unwrap();
        let targets = Tensor::new(&targets, &Device::Cpu).unwrap();
        let loss = cross_entropy(&logits, &targets, &weights, smoothing).unwrap();
        assert!((loss.mean.to_scalar::<f64>().unwrap() - expected).abs() < 1e-12);
        assert_eq!(loss.correct, 1);
        let grads = loss.mean.backward().unwrap();
        let got = grads.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (got, expected) in got.iter().zip(&gradient) {
            assert!((got - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn another_number_of_classes_is_an_error() {
        let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let targets = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
        let error = cross_entropy(&logits, &targets, &[], 0.0).unwrap_err().to_string();
        assert_eq!(error, "the target tensor has shape [2, 4], expected [2, 3]");
    }
}
