/// How close to the class entropy, relative to it, a loss counts as no better than guessing.
pub const COLLAPSE_MARGIN: f64 = 0.02;

/// Whether a run has learned nothing but the classes' frequencies.
///
/// Who ignores the images does best by predicting the classes' frequencies: the loss is then their
/// [`entropy`], and the most frequent class is predicted throughout. Both must hold, `loss` (nats) being at
/// or above `class_entropy` less [`COLLAPSE_MARGIN`], and `predicted` (images per predicted class) having
/// one entry only that is not 0.
pub fn collapsed(loss: f64, class_entropy: f64, predicted: &[u64]) -> bool {
    loss >= class_entropy * (1.0 - COLLAPSE_MARGIN) && predicted.iter().filter(|images| **images > 0).count() == 1
}

/// Entropy in nats of the distribution proportional to `weights`.
pub fn entropy(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    -weights
        .iter()
        .map(|weight| weight / total)
        .filter(|share| *share > 0.0)
        .map(|share| share * share.ln())
        .sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_predictor_is_collapsed_and_a_learner_is_not() {
        // Training images per class of six-class FERPlus, by majority.
        let class_entropy = entropy(&[8739.0, 7287.0, 3149.0, 3013.0, 2099.0, 532.0]);
        assert!((class_entropy - 1.53).abs() < 0.01, "{class_entropy}");
        assert!(collapsed(1.52, class_entropy, &[3162, 0, 0, 0, 0, 0]));
        assert!(!collapsed(1.52, class_entropy, &[3000, 162, 0, 0, 0, 0]));
        assert!(!collapsed(1.40, class_entropy, &[3162, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn even_weights_have_the_entropy_of_their_number() {
        assert!((entropy(&[2.0; 8]) - 8f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[3.0, 0.0]), 0.0);
    }
}
