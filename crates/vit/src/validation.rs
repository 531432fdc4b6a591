//! Shapes: B batch, K classes.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use crate::{VitError, cross_entropy};

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
    /// Adds a batch's `logits` (B, K) and `targets` (B, K).
    pub fn add(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), VitError> {
        let loss = cross_entropy(logits, targets, 0.0)?;
        let (images, classes) = logits.dims2()?;
        self.images += images;
        self.loss_sum += loss.mean.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()? * images as f64;
        self.correct += loss.correct;
        self.predicted.resize(classes, 0);
        for class in logits.argmax(D::Minus1)?.to_vec1::<u32>()? {
            self.predicted[class as usize] += 1;
        }
        Ok(())
    }

    /// The result over all batches; none if there were no images.
    pub fn finish(self) -> Option<Validation> {
        let images = (self.images > 0).then_some(self.images as f64)?;
        let (loss, accuracy) = (self.loss_sum / images, self.correct as f64 / images);
        Some(Validation { loss, accuracy, predicted: self.predicted })
    }
}
