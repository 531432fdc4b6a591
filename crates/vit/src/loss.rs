//! Shapes: B batch, K classes.

use candle_core::{D, DType, Tensor};

use crate::{VitError, error::check_shape, layers::log_softmax};

/// Loss of a batch and how many of its images are classified correctly.
#[derive(Debug)]
pub struct Loss {
    /// Mean cross-entropy in nats, a scalar with a gradient.
    pub mean: Tensor,
    /// Images whose most probable class is that of the target.
    pub correct: usize,
}

/// Cross-entropy of `logits` (B, K) against the probabilities `targets` (B, K), of which `smoothing` is
/// spread evenly over the classes (Szegedy et al. 2016, section 7, <https://arxiv.org/abs/1512.00567>).
///
/// # Errors
/// If the two shapes differ.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Loss, VitError> {
    check_shape(targets, logits.dims(), || "the target tensor".to_owned())?;
    let (batch, classes) = logits.dims2()?;
    let targets = targets.to_dtype(logits.dtype())?;
    let smoothed = targets.affine(1.0 - smoothing, smoothing / classes as f64)?; // (B, K)
    let mean = ((log_softmax(logits)? * smoothed)?.sum_all()? / -(batch as f64))?;
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
        let smoothing = 0.1;
        let mut expected = 0.0;
        let mut gradient = Vec::new();
        for (logits, targets) in logits.iter().zip(&targets) {
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            for (logit, target) in logits.iter().zip(targets) {
                let smoothed = target * (1.0 - smoothing) + smoothing / 3.0;
                expected -= smoothed * (logit.exp() / total).ln() / 2.0;
                gradient.push((logit.exp() / total - smoothed) / 2.0);
            }
        }
        let logits = Var::new(&logits, &Device::Cpu).unwrap();
        let targets = Tensor::new(&targets, &Device::Cpu).unwrap();
        let loss = cross_entropy(&logits, &targets, smoothing).unwrap();
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
        let error = cross_entropy(&logits, &targets, 0.0).unwrap_err().to_string();
        assert_eq!(error, "the target tensor has shape [2, 4], expected [2, 3]");
    }
}
