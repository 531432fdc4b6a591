#[cfg(not(feature = "cuda"))]
use std::convert::Infallible;

use sources::Source;

use crate::{Batch, Trainer, VitError};

/// Tokens of one source on their way into the memory of the GPU on which runs are trained.
#[derive(Debug)]
pub struct Holding {
    #[cfg(feature = "cuda")]
    tokens: crate::cuda::Holding,
    /// Nothing else has a memory of its own.
    #[cfg(not(feature = "cuda"))]
    tokens: Infallible,
}

/// Tokens of one source of some images in a GPU's memory. Batches for those who read them there need only say which images they show
/// ([`Batch::held`]), and nothing crosses the bus. They stay for as long as this, or anybody who reads them, is there.
#[derive(Clone, Debug)]
pub struct Held {
    #[cfg(feature = "cuda")]
    pub(crate) tokens: crate::cuda::Held,
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

    /// What is held now.
    ///
    /// # Errors
    /// If not all images have been taken.
    pub fn finish(self) -> Result<Held, VitError> {
        Ok(Held { tokens: self.tokens.finish()? })
    }
}

#[cfg(feature = "cuda")]
impl Held {
    /// Has `trainers`, for which it was made, read from it from now on.
    pub fn lend_to(&self, trainers: &[Trainer]) {
        trainers.iter().filter_map(Trainer::member).for_each(|member| self.tokens.lend_to(member));
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
    pub fn finish(self) -> Result<Held, VitError> {
        match self.tokens {}
    }
}

#[cfg(not(feature = "cuda"))]
#[expect(clippy::missing_const_for_fn, reason = "it is the other's twin, and never called")]
impl Held {
    /// Never called.
    pub fn lend_to(&self, _: &[Trainer]) {
        match self.tokens {}
    }
}
