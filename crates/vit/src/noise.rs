//! Shapes: B batch, N tokens, D width.

use candle_core::{Device, Result, Tensor};

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
            Some(draws) if self.dropout > 0.0 => x.mul(&mask(draws, x.dims(), self.dropout, &x)?),
            _ => Ok(x),
        }
    }

    /// Drops the branch `x` (B, N, D) for whole images, with a probability that rises linearly with the
    /// block: `position` is (block + 1) / depth (Huang et al. 2016, equation 4).
    pub(crate) fn drop_path(&mut self, x: Tensor, position: f64) -> Result<Tensor> {
        match &mut self.draws {
            Some(draws) if self.drop_path > 0.0 => {
                let images = x.dim(0)?;
                let mask = mask(draws, &[images, 1, 1], self.drop_path * position, &x)?; // (B, 1, 1)
                x.broadcast_mul(&mask)
            }
            _ => Ok(x),
        }
    }
}

/// A mask of `shape`, of the type and on the device of `x`.
fn mask(draws: &mut Draws, shape: &[usize], drop: f64, x: &Tensor) -> Result<Tensor> {
    let mut values = vec![0.0; shape.iter().product()];
    draws.mask(&mut values, drop);
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
}
