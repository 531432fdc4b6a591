//! Shapes: B batch, N tokens, D width, H heads.

use candle_core::{D, Result, Tensor};

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
        let qkv = self.queries_keys_values(x, norm)?; // (B, N, 3D)
        self.proj.scaled(scale)?.forward(&ops::attention(&qkv, self.heads)?) // (B, N, D)
    }

    /// What each token of `x` (B, N, D) looks at: (B, H, N, N), rows summing to 1.
    pub(crate) fn weights(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let qkv = self.queries_keys_values(x, norm)?; // (B, N, 3D)
        let head_width = width / self.heads;
        let part = |index| {
            let part = qkv.narrow(2, index * width, width)?.reshape((batch, tokens, self.heads, head_width))?;
            part.transpose(1, 2)?.contiguous() // (B, H, N, D/H)
        };
        let scores = part(0)?.matmul(&part(1)?.t()?)?.affine((head_width as f64).powf(-0.5), 0.0)?;
        candle_nn::ops::softmax(&scores, D::Minus1)
    }

    /// Side by side, (B, N, 3D), queries and keys normalised if the model does that.
    fn queries_keys_values(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let qkv = self.qkv.after(norm)?.forward(&normalised(x)?)?; // (B, N, 3D)
        let Some((q_gain, k_gain)) = &self.norm_gains else { return Ok(qkv) };
        let (batch, tokens, width) = x.dims3()?;
        let part = |index| qkv.narrow(2, index * width, width)?.contiguous(); // (B, N, D)
        let by_head = |part: Tensor| part.reshape((batch, tokens, self.heads, width / self.heads));
        // Scores only see the product of the two gains.
        let q = normalised(&by_head(part(0)?)?)?.broadcast_mul(&(q_gain * k_gain)?)?; // (B, N, H, D/H)
        let k = normalised(&by_head(part(1)?)?)?; // (B, N, H, D/H)
        Tensor::cat(&[q.reshape(x.shape())?, k.reshape(x.shape())?, part(2)?], 2) // (B, N, 3D)
    }
}
