//! Shapes: B batch, N tokens, D width.

use candle_core::{Result, Tensor};

use crate::Draws;

/// What a forward pass drops at random: activations, and whole branches of single images.
#[derive(Debug)]
pub struct Noise<'a> {
    draws: Option<&'a mut Draws>,
    dropout: f64,
    drop_path: f64,
}

impl<'a> Noise<'a> {
    /// Drops nothing, as in evaluation.
    pub const fn off() -> Self {
        Self { draws: None, dropout: 0.0, drop_path: 0.0 }
    }

    /// Drops activations with probability `dropout`, and branches with up to `drop_path`.
    pub const fn from(draws: &'a mut Draws, dropout: f64, drop_path: f64) -> Self {
        Self { draws: Some(draws), dropout, drop_path }
    }

    /// Dropout of `x` (B, N, D).
    pub(crate) fn dropout(&mut self, x: Tensor) -> Result<Tensor> {
        match &mut self.draws {
            Some(draws) if self.dropout > 0.0 => x.mul(&draws.mask(x.dims(), self.dropout, x.dtype(), x.device())?),
            _ => Ok(x),
        }
    }

    /// Drops the branch `x` (B, N, D) for whole images, with a probability that rises linearly with the
    /// block: `position` is (block + 1) / depth (Huang et al. 2016, equation 4).
    pub(crate) fn drop_path(&mut self, x: Tensor, position: f64) -> Result<Tensor> {
        match &mut self.draws {
            Some(draws) if self.drop_path > 0.0 => {
                let images = x.dim(0)?;
                let mask = draws.mask(&[images, 1, 1], self.drop_path * position, x.dtype(), x.device())?; // (B, 1, 1)
                x.broadcast_mul(&mask)
            }
            _ => Ok(x),
        }
    }
}
