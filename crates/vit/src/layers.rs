//! The ViT's layers.
//!
//! Shapes: M rows (batch and tokens together), D width, I inputs, O outputs.
//!
//! Every layer norm of a ViT is followed by a linear layer, and every layer scale follows one. Their gains
//! and offsets are therefore multiplied into that layer's weight, which is small, instead of into the
//! activations, which are not:
//! (x ⊙ g + o) Wᵀ + b = x (W diag(g))ᵀ + (W o + b), and s ⊙ (x Wᵀ + b) = x (diag(s) W)ᵀ + s ⊙ b.

use candle_core::{D, Result, Tensor};

use crate::{
    ModelConfig, ops,
    parameters::{Builder, Init},
};

/// Added to the variance, as in PyTorch's `LayerNorm`; timm's ViT has 1e-6, which f32 does not tell apart
/// on activations of unit scale.
pub(crate) const LAYER_NORM_EPSILON: f64 = 1e-5;

/// y = x (g W)ᵀ + b with a constant g, which is 1 but for [`ModelConfig::equal_lr`].
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
    gain: f64,
}

impl Linear {
    /// g · `weight` (O, I) starts normal, scaled by the inputs, and `bias` (O) at 0.
    pub(crate) fn new(mut builder: Builder<'_>, config: &ModelConfig, inputs: usize, outputs: usize) -> Result<Self> {
        let by_inputs = 1.0 / (inputs as f64).sqrt();
        let gain = if config.equal_lr { by_inputs } else { 1.0 };
        Ok(Self {
            weight: builder.get("weight", &[outputs, inputs], Init::Normal(config.init_gain * by_inputs / gain))?,
            bias: builder.get("bias", &[outputs], Init::Constant(0.0))?,
            gain,
        })
    }

    /// Of `x` (…, I): (…, O).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(outputs);
        ops::linear(&x.reshape(((), inputs))?, &times(&self.weight, self.gain)?, &self.bias)?.reshape(shape)
    }

    /// This layer after `norm`, for inputs that are [`normalised`].
    pub(crate) fn after(&self, norm: &LayerNorm) -> Result<Self> {
        let weight = self.weight.broadcast_mul(&times(&norm.weight, self.gain)?)?; // (O, I)
        let offset = self.weight.matmul(&times(&norm.bias, self.gain)?.unsqueeze(1)?)?.squeeze(1)?; // (O)
        Ok(Self { weight, bias: (&self.bias + offset)?, gain: 1.0 })
    }

    /// This layer with `scale`, if there is one, after it.
    pub(crate) fn scaled(&self, scale: &Option<LayerScale>) -> Result<Self> {
        let Some(LayerScale { gamma }) = scale else {
            return Ok(Self { weight: self.weight.clone(), bias: self.bias.clone(), gain: self.gain });
        };
        let weight = self.weight.broadcast_mul(&times(gamma, self.gain)?.unsqueeze(1)?)?; // (O, I)
        Ok(Self { weight, bias: (&self.bias * gamma)?, gain: 1.0 })
    }
}

/// `x` · `gain`, for nothing if that is 1.
fn times(x: &Tensor, gain: f64) -> Result<Tensor> {
    if gain == 1.0 { Ok(x.clone()) } else { x * gain }
}

/// Gain and offset of a layer norm.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Gain 1 and offset 0 at first.
    pub(crate) fn new(mut builder: Builder<'_>, width: usize) -> Result<Self> {
        Ok(Self {
            weight: builder.get("weight", &[width], Init::Constant(1.0))?,
            bias: builder.get("bias", &[width], Init::Constant(0.0))?,
        })
    }
}

/// A layer norm of `x` (…, D) but for its gain and offset, which [`Linear::after`] takes over.
pub(crate) fn normalised(x: &Tensor) -> Result<Tensor> {
    ops::normalise(x, LAYER_NORM_EPSILON)
}

/// A learned gain on a branch (Touvron et al. 2021, <https://arxiv.org/abs/2103.17239>).
#[derive(Debug)]
pub(crate) struct LayerScale {
    gamma: Tensor,
}

impl LayerScale {
    /// The same `start` for every channel.
    pub(crate) fn new(mut builder: Builder<'_>, width: usize, start: f64) -> Result<Self> {
        Ok(Self { gamma: builder.get("gamma", &[width], Init::Constant(start))? })
    }
}

/// Two linear layers with a GELU between.
#[derive(Debug)]
pub(crate) struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// From the model's width to `hidden` and back.
    pub(crate) fn new(mut builder: Builder<'_>, config: &ModelConfig, hidden: usize) -> Result<Self> {
        Ok(Self {
            fc1: Linear::new(builder.under("fc1"), config, config.width, hidden)?,
            fc2: Linear::new(builder.under("fc2"), config, hidden, config.width)?,
        })
    }

    /// `scale` ⊙ MLP(`norm`(`x`)) of `x` (…, D).
    pub(crate) fn forward(&self, x: &Tensor, norm: &LayerNorm, scale: &Option<LayerScale>) -> Result<Tensor> {
        let hidden = ops::gelu(&self.fc1.after(norm)?.forward(&normalised(x)?)?)?;
        self.fc2.scaled(scale)?.forward(&hidden)
    }
}

/// The logarithm of the softmax over the last dimension.
///
/// The maximum only guards against overflow and cancels out, so no gradient is sent through it.
pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}
