//! Shapes: B batch, K classes.

use serde::{Deserialize, Serialize};

/// How a model does on images that it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of the images classified correctly.
    pub accuracy: f64,
    /// Images per predicted class.
    pub predicted: Vec<u64>,
}

/// Sums up a [`Validation`] over batches.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    images: usize,
    loss_sum: f64,
    correct: usize,
    predicted: Vec<u64>,
}

impl Tally {
    /// Adds the `logits` (B, K) of a batch whose targets are `targets` (B, K).
    ///
    /// # Panics
    /// If there are fewer targets than logits.
    pub fn add(&mut self, logits: &[Vec<f32>], targets: &[f32]) {
        for (image, logits) in logits.iter().enumerate() {
            let target = &targets[image * logits.len()..][..logits.len()];
            let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
            let answers = logits.iter().zip(target);
            self.loss_sum -= answers
                .map(|(logit, target)| f64::from(*target) * (f64::from(*logit) - largest - total.ln()))
                .sum::<f64>();
            let predicted = first_largest(logits);
            self.images += 1;
            self.correct += usize::from(predicted == first_largest(target));
            self.predicted.resize(logits.len(), 0);
            self.predicted[predicted] += 1;
        }
    }

    /// The result over all batches; none if there were no images.
    pub fn finish(self) -> Option<Validation> {
        let images = (self.images > 0).then_some(self.images as f64)?;
        let (loss, accuracy) = (self.loss_sum / images, self.correct as f64 / images);
        Some(Validation { loss, accuracy, predicted: self.predicted })
    }
}

/// Index of the largest value, the first of several.
pub fn first_largest(values: &[f32]) -> usize {
    (0..values.len()).reduce(|best, at| if values[at] > values[best] { at } else { best }).unwrap_or(0)
}
