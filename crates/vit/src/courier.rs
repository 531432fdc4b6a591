#[cfg(not(feature = "cuda"))]
use std::convert::Infallible;

use crate::{Batch, Trainer, VitError};

/// Brings tokens of batches into the memory of the GPU on which runs are trained, while it takes the steps before: for the
/// thread that reads them.
#[derive(Debug)]
pub struct Courier {
    #[cfg(feature = "cuda")]
    tokens: crate::cuda::Courier,
    /// Nothing else has a memory of its own.
    #[cfg(not(feature = "cuda"))]
    tokens: Infallible,
}

/// What of a batch has gone ahead.
#[derive(Debug, Default)]
pub struct Sent {
    #[cfg(any(feature = "cuda", test))]
    pub(crate) tokens: crate::cuda::Sent,
}

impl Sent {
    /// The batch is filled with other tokens: those that have gone ahead are of no use. Their place is.
    pub fn expire(&mut self) {
        #[cfg(any(feature = "cuda", test))]
        self.tokens.expire();
    }
}

/// A copy of a batch has its tokens with it.
impl Clone for Sent {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Where a batch's tokens are is no part of what they are.
impl PartialEq for Sent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(feature = "cuda")]
impl Courier {
    /// To the GPU on which all `trainers` take their steps; none if they take them elsewhere.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn to(trainers: &[Trainer]) -> Result<Option<Self>, VitError> {
        let members = trainers.iter().map(Trainer::member).collect::<Option<Vec<_>>>();
        let Some(first) = members.as_ref().and_then(|members| members.first()) else { return Ok(None) };
        Ok(Some(Self { tokens: crate::cuda::Courier::to(first)? }))
    }

    /// Brings all tokens that `batch` has. They stay with it as well, for who wants to look at them.
    ///
    /// # Errors
    /// If the GPU fails, or has no memory left.
    pub fn send(&self, batch: &mut Batch) -> Result<(), VitError> {
        self.tokens.send(batch)
    }
}

#[cfg(not(feature = "cuda"))]
#[expect(
    clippy::missing_errors_doc,
    clippy::missing_const_for_fn,
    reason = "they are the others' twins, and never called"
)]
impl Courier {
    /// None: this program knows no GPU.
    pub fn to(_: &[Trainer]) -> Result<Option<Self>, VitError> {
        Ok(None)
    }

    /// Never called.
    pub fn send(&self, _: &mut Batch) -> Result<(), VitError> {
        match self.tokens {}
    }
}
