//! Shapes: B batch, N tokens of one source, W a source's token width, K classes.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use candle_core::Tensor;
use half::f16;
use kernels::{Isa, Standardise};
use rayon::prelude::*;
use sources::Source;

use crate::{About, Sent, VitError};

/// The tokens of one source.
#[derive(Clone, Debug, PartialEq)]
pub enum Tokens {
    /// Standardised, (B, N, W).
    Ready(Vec<f32>),
    /// Maps as the cache holds them, (B, side, side, channels), and how they are cut into tokens and standardised. Takes
    /// half the memory; the step cuts and standardises what it multiplies.
    Stored(Vec<f16>, Arc<Standardise>),
}

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ready(values) => values.len(),
            Self::Stored(values, _) => values.len(),
        }
    }

    /// Bytes of the values.
    pub const fn size_bytes(&self) -> usize {
        match self {
            Self::Ready(values) => size_of_val(values.as_slice()),
            Self::Stored(values, _) => size_of_val(values.as_slice()),
        }
    }

    fn first_not_finite(&self) -> Option<(usize, f32)> {
        match self {
            Self::Ready(values) => first(values, |value| !value.is_finite()).map(|at| (at, values[at])),
            Self::Stored(values, _) => first(values, |value| !value.is_finite()).map(|at| (at, values[at].to_f32())),
        }
    }

    /// Standardised, as the step sees them.
    fn ready(&self, isa: Isa) -> Cow<'_, [f32]> {
        match self {
            Self::Ready(values) => Cow::Borrowed(values),
            Self::Stored(values, standardise) => {
                let patches = standardise.patches();
                let maps = values.chunks_exact(patches.values_per_map());
                let mut ready = vec![0.0; maps.len() * patches.tokens() * patches.token_width()];
                for (map, tokens) in maps.zip(ready.chunks_exact_mut(patches.tokens() * patches.token_width())) {
                    for (token, to) in tokens.chunks_exact_mut(patches.token_width()).enumerate() {
                        standardise.part(isa, map, token, 0, standardise.moments(isa, map, token), to);
                    }
                }
                Cow::Owned(ready)
            }
        }
    }
}

/// Where the first of `values` that `is_bad` lies. Gigabytes are looked through before a GPU takes them, so that all threads look, and
/// at many values at once: nobody asks which of a chunk it is before there is one.
fn first<T: Copy + Sync>(values: &[T], is_bad: impl Fn(T) -> bool + Sync) -> Option<usize> {
    const CHUNK: usize = 1 << 16;
    let has_bad = |(_, chunk): &(usize, &[T])| chunk.iter().fold(false, |found, value| found | is_bad(*value));
    let (number, chunk) = values.par_chunks(CHUNK).enumerate().find_first(has_bad)?;
    chunk.iter().position(|value| is_bad(*value)).map(|at| number * CHUNK + at)
}

/// What models are asked about: the tokens of some images, and what they should answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// B.
    pub images: usize,
    /// Of each source that a model reads, or of more: a batch may serve several models. Not of those whose tokens are
    /// [held](crate::Held).
    pub tokens: BTreeMap<Source, Tokens>,
    /// Which of the images whose tokens are held these are: (B); of no meaning if none are.
    pub held: Vec<u32>,
    /// Tokens that have gone ahead to a GPU.
    pub sent: Sent,
    /// Probabilities of the classes: (B, K).
    pub targets: Vec<f32>,
    /// How much each image's loss counts: (B); all alike if there are none.
    pub weights: Vec<f32>,
}

impl Batch {
    /// The source, the image and the value of the first token that is NaN or infinite.
    pub fn first_not_finite(&self) -> Option<(Source, usize, f32)> {
        self.tokens.iter().find_map(|(source, tokens)| {
            let (at, value) = tokens.first_not_finite()?;
            Some((*source, at / (tokens.len() / self.images), value))
        })
    }

    /// The tokens that a model of `about` reads, in its order.
    ///
    /// # Errors
    /// If there are none of a source, or they have another shape.
    pub(crate) fn tokens_for(&self, about: &About) -> Result<Vec<&Tokens>, VitError> {
        self.tokens_but(about, |_| false)
    }

    /// The same without those of the sources that are held.
    pub(crate) fn tokens_but(&self, about: &About, is_held: impl Fn(Source) -> bool) -> Result<Vec<&Tokens>, VitError> {
        let shape = |what: String, expected: Vec<usize>, got: usize| match expected.iter().product::<usize>() == got {
            true => Ok(()),
            false => Err(VitError::Shape { what, expected, got: vec![got] }),
        };
        let mut all = Vec::with_capacity(about.inputs.len());
        for input in about.inputs.iter().filter(|input| !is_held(input.source)) {
            let Some(tokens) = self.tokens.get(&input.source) else {
                return Err(VitError::NoTokens { missing: input.source });
            };
            let places = about.model.tokens_per_source();
            let what = format!("the token tensor of {}", input.source);
            match tokens {
                Tokens::Ready(values) => shape(what, vec![self.images, places, input.token_width], values.len())?,
                Tokens::Stored(maps, standardise) => {
                    let patches = standardise.patches();
                    let got = patches.tokens() * patches.token_width();
                    shape(format!("the tokens of a map of {}", input.source), vec![places, input.token_width], got)?;
                    shape(what, vec![self.images, patches.side, patches.side, patches.channels], maps.len())?;
                }
            }
            all.push(tokens);
        }
        shape("the target tensor".to_owned(), vec![self.images, about.classes.len()], self.targets.len())?;
        if !self.weights.is_empty() {
            shape("the tensor of weights".to_owned(), vec![self.images], self.weights.len())?;
        }
        Ok(all)
    }

    /// The tokens as tensors for `model`.
    pub(crate) fn token_tensors(&self, model: &crate::Model) -> Result<Vec<Tensor>, VitError> {
        let places = model.about().model.tokens_per_source();
        let isa = Isa::choose()?;
        let tensor = |tokens: &&Tokens| {
            let ready = tokens.ready(isa);
            let shape = (self.images, places, ready.len() / places / self.images);
            Tensor::from_slice(&ready, shape, model.device())?.to_dtype(model.dtype())
        };
        Ok(self.tokens_for(model.about())?.iter().map(tensor).collect::<Result<_, _>>()?)
    }

    /// The targets as a tensor (B, K) for `model`.
    pub(crate) fn target_tensor(&self, model: &crate::Model) -> Result<Tensor, VitError> {
        let shape = (self.images, self.targets.len() / self.images);
        Ok(Tensor::from_slice(&self.targets, shape, model.device())?.to_dtype(model.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_wherever_it_lies() {
        const MANY: usize = 300_000;
        for at in [0, 65_535, 65_536, MANY - 1] {
            let mut values = vec![f16::MAX.to_f32(); MANY];
            assert_eq!(first(&values, |value| !value.is_finite()), None);
            values[at] = f32::NEG_INFINITY;
            values[MANY - 1] = f32::NEG_INFINITY;
            assert_eq!(first(&values, |value| !value.is_finite()), Some(at));
        }
        let mut values = vec![1.0; 3 * MANY];
        values[2 * MANY + 5] = f32::INFINITY;
        let batch = Batch { images: 3, tokens: [(Source::Fm2, Tokens::Ready(values))].into(), ..Batch::default() };
        assert_eq!(batch.first_not_finite(), Some((Source::Fm2, 2, f32::INFINITY)));
    }
}
