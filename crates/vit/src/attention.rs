//! Shapes: B batch, N tokens, D width, H heads.

use candle_core::{Result, Tensor};

use crate::{
    ModelConfig,
    layers::{LayerNorm, LayerScale, Linear, normalised},
    ops,
    parameters::{Builder, Init},
};

/// Multi-head self-attention (Vaswani et al. 2017, section 3.2, <https://arxiv.org/abs/1706.03762>).
#[derive(Debug)]
pub(crate) struct Attention {
    qkv: Linear,
    /// Gains of the norms of queries and keys, (D/H) each. They have no offset, as in ViT-22B: one on the keys
    /// would add the same number to all scores of a query, which softmax ignores.
    norm_gains: Option<(Tensor, Tensor)>,
    proj: Linear,
    heads: usize,
}

impl Attention {
    pub(crate) fn new(mut builder: Builder<'_>, config: &ModelConfig) -> Result<Self> {
        let width = config.width;
        let head_width = width / config.heads;
        let norm_gains = if config.qk_norm {
            let mut gain = |name| builder.get(name, &[head_width], Init::Constant(1.0));
            Some((gain("q_norm.weight")?, gain("k_norm.weight")?))
        } else {
            None
        };
        Ok(Self {
            qkv: Linear::new(builder.under("qkv"), config, width, 3 * width)?,
            norm_gains,
            proj: Linear::new(builder.under("proj"), config, width, width)?,
            heads: config.heads,
        })
    }

    /// `scale` ⊙ attention(`norm`(`x`)) of `x` (B, N, D).
    pub(crate) fn forward(&self, x: &Tensor, norm: &LayerNorm, scale: &Option<LayerScale>) -> Result<Tensor> {
        let mut qkv = self.qkv.after(norm)?.forward(&normalised(x)?)?; // (B, N, 3D)
        if let Some((q_gain, k_gain)) = &self.norm_gains {
            let (batch, tokens, width) = x.dims3()?;
            let part = |index| qkv.narrow(2, index * width, width)?.contiguous(); // (B, N, D)
            let by_head = |part: Tensor| part.reshape((batch, tokens, self.heads, width / self.heads));
            // Scores only see the product of the two gains.
            let q = normalised(&by_head(part(0)?)?)?.broadcast_mul(&(q_gain * k_gain)?)?; // (B, N, H, D/H)
            let k = normalised(&by_head(part(1)?)?)?; // (B, N, H, D/H)
            qkv = Tensor::cat(&[q.reshape(x.shape())?, k.reshape(x.shape())?, part(2)?], 2)?; // (B, N, 3D)
        }
        self.proj.scaled(scale)?.forward(&ops::attention(&qkv, self.heads)?) // (B, N, D)
    }
}
