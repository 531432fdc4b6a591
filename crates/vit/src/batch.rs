//! Shapes: B batch, N tokens of one source, W a source's token width, K classes.

use std::{borrow::Cow, sync::Arc};

use candle_core::Tensor;
use half::f16;
use kernels::{Isa, Standardise};

use crate::{About, VitError};

/// The tokens of one source.
#[derive(Clone, Debug, PartialEq)]
pub enum Tokens {
    /// Standardised, (B, N, W).
    Ready(Vec<f32>),
    /// As the cache holds them, (B, N, W), and how they are standardised. Takes half the memory; the step standardises
    /// what it multiplies.
    Stored(Vec<f16>, Arc<Standardise>),
}

impl Tokens {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ready(values) => values.len(),
            Self::Stored(values, _) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Standardised, as the step sees them.
    fn ready(&self, isa: Isa) -> Cow<'_, [f32]> {
        match self {
            Self::Ready(values) => Cow::Borrowed(values),
            Self::Stored(values, standardise) => {
                let mut ready = vec![0.0; values.len()];
                let width = standardise.width();
                for (token, ready) in values.chunks_exact(width).zip(ready.chunks_exact_mut(width)) {
                    standardise.stored(isa, token, ready);
                }
                Cow::Owned(ready)
            }
        }
    }
}

/// What a model is asked about: the tokens of some images, and what it should answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// B.
    pub images: usize,
    /// Of each source, in the model's order.
    pub tokens: Vec<Tokens>,
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
            if let Tokens::Stored(_, standardise) = tokens {
                let what = format!("the standardisation of {}", input.source);
                shape(what, vec![input.token_width], standardise.width())?;
            }
        }
        shape("the target tensor".to_owned(), vec![self.images, about.classes.len()], self.targets.len())
    }

    /// The tokens as tensors for `model`.
    pub(crate) fn token_tensors(&self, model: &crate::Model) -> Result<Vec<Tensor>, VitError> {
        let places = model.about().model.tokens_per_source();
        let isa = Isa::choose()?;
        let tensor = |tokens: &Tokens| {
            let width = tokens.len() / places / self.images;
            Tensor::from_slice(&tokens.ready(isa), (self.images, places, width), model.device())?
                .to_dtype(model.dtype())
        };
        Ok(self.tokens.iter().map(tensor).collect::<Result<_, _>>()?)
    }

    /// The targets as a tensor (B, K) for `model`.
    pub(crate) fn target_tensor(&self, model: &crate::Model) -> Result<Tensor, VitError> {
        let shape = (self.images, self.targets.len() / self.images);
        Ok(Tensor::from_slice(&self.targets, shape, model.device())?.to_dtype(model.dtype())?)
    }
}
