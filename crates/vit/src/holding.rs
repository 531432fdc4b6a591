#[cfg(not(feature = "cuda"))]
use std::convert::Infallible;

use sources::Source;

use crate::{Batch, Trainer, VitError};

/// Tokens of one source on their way into the memory of the GPU on which runs are trained. There they stay for as long as the
/// trainers do: batches need only say which images they show ([`Batch::held`]), and nothing crosses the bus.
#[derive(Debug)]
pub struct Holding {
    #[cfg(feature = "cuda")]
    tokens: crate::cuda::Holding,
    /// Nothing else has a memory of its own.
    #[cfg(not(feature = "cuda"))]
    tokens: Infallible,
}

#[cfg(feature = "cuda")]
impl Holding {
    /// For the tokens that `source` has of `images` images, which are like those of the batch `like`; none unless all `trainers`
    /// take their steps on one GPU, and it has memory for so many.
    ///
    /// # Errors
    /// If the batch has none of the source, or the GPU fails.
    pub fn begin(trainers: &[Trainer], source: Source, images: usize, like: &Batch) -> Result<Option<Self>, VitError> {
        let members = trainers.iter().map(Trainer::member).collect::<Option<Vec<_>>>();
        let Some(first) = members.as_ref().and_then(|members| members.first()) else { return Ok(None) };
        let tokens = crate::cuda::Holding::begin(first, source, images, like)?;
        Ok(tokens.map(|tokens| Self { tokens }))
    }

    /// Takes the tokens of the next images, those of `batch`.
    ///
    /// # Errors
    /// If the batch has none of the source, or the GPU fails.
    ///
    /// # Panics
    /// If they are more than it began with.
    pub fn add(&mut self, batch: &Batch) -> Result<(), VitError> {
        self.tokens.add(batch)
    }

    /// Has `trainers`, with which it began, read from it from now on.
    ///
    /// # Errors
    /// If not all images have been taken.
    pub fn finish(self, trainers: &[Trainer]) -> Result<(), VitError> {
        self.tokens.finish(trainers.iter().filter_map(Trainer::member))
    }
}

#[cfg(not(feature = "cuda"))]
#[expect(
    clippy::missing_errors_doc,
    clippy::missing_const_for_fn,
    reason = "they are the others' twins, and never called"
)]
impl Holding {
    /// None: this program knows no GPU.
    pub fn begin(_: &[Trainer], _: Source, _: usize, _: &Batch) -> Result<Option<Self>, VitError> {
        Ok(None)
    }

    /// Never called.
    pub fn add(&mut self, _: &Batch) -> Result<(), VitError> {
        match self.tokens {}
    }

    /// Never called.
    pub fn finish(self, _: &[Trainer]) -> Result<(), VitError> {
        match self.tokens {}
    }
}
