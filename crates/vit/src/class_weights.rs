use choice::choice;

/// β of Cui et al. (2019) that they found best for the most unbalanced sets (section 5.3).
const EFFECTIVE_BETA: f64 = 0.9999;

choice! {
    /// How much the loss of an image counts by its class.
    #[derive(Default)]
    pub enum ClassWeights for "loss.weights" {
        /// All alike.
        #[default]
        None = "none",
        /// By the inverse of the class's number of images.
        Inverse = "inverse",
        /// By the inverse of its effective number of images, (1 − βⁿ) / (1 − β) of n with β = 0.9999 (Cui et al. 2019,
        /// <https://arxiv.org/abs/1901.05555>, equation 3): images of a class repeat each other.
        Effective = "effective",
    }
}

impl ClassWeights {
    /// The weight of each class, whose training images are `counts` (fractions where targets are soft), so that the mean
    /// over all training images is 1. A class without images has weight 0. None if all count alike.
    pub fn of(self, counts: &[f64]) -> Option<Vec<f32>> {
        let number = |count: f64| match self {
            Self::None => None,
            Self::Inverse => Some(count),
            Self::Effective => Some((1.0 - EFFECTIVE_BETA.powf(count)) / (1.0 - EFFECTIVE_BETA)),
        };
        let inverse = |count: &f64| Some(if *count > 0.0 { 1.0 / number(*count)? } else { 0.0 });
        let weights = counts.iter().map(inverse).collect::<Option<Vec<f64>>>()?;
        let images: f64 = counts.iter().sum();
        let total: f64 = weights.iter().zip(counts).map(|(weight, count)| weight * count).sum();
        Some(weights.iter().map(|weight| (weight * images / total) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_all_images_is_one() {
        let counts = [900.0, 90.0, 10.0, 0.0];
        assert_eq!(ClassWeights::None.of(&counts), None);
        for rule in [ClassWeights::Inverse, ClassWeights::Effective] {
            let weights = rule.of(&counts).unwrap();
            let mean: f64 =
                weights.iter().zip(counts).map(|(weight, count)| f64::from(*weight) * count).sum::<f64>() / 1000.0;
            assert!((mean - 1.0).abs() < 1e-6, "{rule}: {mean}");
            assert!(weights[0] < weights[1] && weights[1] < weights[2] && weights[3] == 0.0, "{rule}: {weights:?}");
        }
        let inverse = ClassWeights::Inverse.of(&counts).unwrap();
        // 1000 / (3 classes × n).
        assert!((inverse[2] - 1000.0 / 30.0).abs() < 1e-4, "{inverse:?}");
        // Cui et al.: 10 and 900 images have 9.996 and 860.7 effective ones.
        let effective = ClassWeights::Effective.of(&counts).unwrap();
        assert!((effective[2] / effective[0] - 860.7 / 9.996).abs() < 0.05, "{effective:?}");
    }
}
