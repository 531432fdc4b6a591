//! Shapes: B batch, N tokens of one source, W a source's token width, K classes.

use candle_core::Tensor;

use crate::{About, VitError};

/// What a model is asked about: the tokens of some images, and what it should answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// B.
    pub images: usize,
    /// Standardised tokens (B, N, W) of each source, in the model's order.
    pub tokens: Vec<Vec<f32>>,
    /// Probabilities of the classes: (B, K).
    pub targets: Vec<f32>,
}

impl Batch {
    /// Fails unless this is what a model of `about` reads.
    pub(crate) fn check(&self, about: &About) -> Result<(), VitError> {
        if self.tokens.len() != about.inputs.len() {
            return Err(VitError::SourceCount { expected: about.inputs.len(), got: self.tokens.len() });
        }
        let shape = |what: String, expected: Vec<usize>, got: usize| match expected.iter().product::<usize>() == got {
            true => Ok(()),
            false => Err(VitError::Shape { what, expected, got: vec![got] }),
        };
        for (input, tokens) in about.inputs.iter().zip(&self.tokens) {
            let expected = vec![self.images, about.model.tokens_per_source(), input.token_width];
            shape(format!("the token tensor of {}", input.source), expected, tokens.len())?;
        }
        shape("the target tensor".to_owned(), vec![self.images, about.classes.len()], self.targets.len())
    }

    /// The tokens as tensors for `model`.
    pub(crate) fn token_tensors(&self, model: &crate::Model) -> Result<Vec<Tensor>, VitError> {
        let places = model.about().model.tokens_per_source();
        let tensor = |tokens: &Vec<f32>| {
            let width = tokens.len() / places / self.images;
            Tensor::from_slice(tokens, (self.images, places, width), model.device())?.to_dtype(model.dtype())
        };
        Ok(self.tokens.iter().map(tensor).collect::<Result<_, _>>()?)
    }

    /// The targets as a tensor (B, K) for `model`.
    pub(crate) fn target_tensor(&self, model: &crate::Model) -> Result<Tensor, VitError> {
        let shape = (self.images, self.targets.len() / self.images);
        Ok(Tensor::from_slice(&self.targets, shape, model.device())?.to_dtype(model.dtype())?)
    }
}
