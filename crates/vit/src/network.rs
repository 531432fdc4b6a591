//! Shapes: B batch, N tokens in the sequence, D width, K classes.

use candle_core::{Result, Tensor};

use crate::{
    Input, ModelConfig, Noise, Pool,
    attention::Attention,
    embed::Embed,
    layers::{LayerNorm, LayerScale, Linear, Mlp, normalised},
    parameters::Builder,
};

/// The layers of a pre-norm ViT, over trainable or over detached parameters.
#[derive(Debug)]
pub(crate) struct Network {
    embed: Embed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    pool: Pool,
}

impl Network {
    pub(crate) fn new(
        mut builder: Builder<'_>,
        config: &ModelConfig,
        inputs: &[Input],
        classes: usize,
    ) -> Result<Self> {
        Ok(Self {
            embed: Embed::new(&mut builder, config, inputs)?,
            blocks: (0..config.depth)
                .map(|index| Block::new(builder.under("blocks").under(&index.to_string()), config, index))
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(builder.under("norm"), config.width)?,
            head: Linear::new(builder.under("head"), config, config.width, classes)?,
            pool: config.pool,
        })
    }

    /// What each token looks at in each block: (B, H, N, N).
    pub(crate) fn attention(&self, tokens: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut x = self.embed.forward(tokens)?; // (B, N, D)
        let mut weights = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            weights.push(block.attn.weights(&x, &block.norm1)?);
            x = block.forward(&x, &mut Noise::off())?;
        }
        Ok(weights)
    }

    /// Logits (B, K) of one tensor (B, N, W) per source.
    pub(crate) fn forward(&self, tokens: &[Tensor], noise: &mut Noise<'_>) -> Result<Tensor> {
        let mut x = noise.dropout(self.embed.forward(tokens)?)?; // (B, N, D)
        for block in &self.blocks {
            x = block.forward(&x, noise)?;
        }
        let pooled = match self.pool {
            // The norm's gain and offset are the same for all tokens, so they may as well follow the mean.
            Pool::Mean => normalised(&x)?.mean(1)?,
            // The norm works token by token: only the class token's is needed.
            Pool::Cls => normalised(&x.narrow(1, 0, 1)?.squeeze(1)?)?,
        }; // (B, D)
        self.head.after(&self.norm)?.forward(&pooled) // (B, K)
    }
}

/// Attention and MLP, each on a normalised copy of the tokens and added to them (Dosovitskiy et al. 2021,
/// equations 2 and 3).
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    scale1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    scale2: Option<LayerScale>,
    /// (block + 1) / depth: how much of the drop-path probability applies here.
    position: f64,
}

impl Block {
    fn new(mut builder: Builder<'_>, config: &ModelConfig, index: usize) -> Result<Self> {
        let width = config.width;
        let hidden = width * config.mlp_ratio;
        let mut scale = |name| match config.layer_scale {
            0.0 => Ok(None),
            start => LayerScale::new(builder.under(name), width, start).map(Some),
        };
        let (scale1, scale2) = (scale("ls1")?, scale("ls2")?);
        Ok(Self {
            norm1: LayerNorm::new(builder.under("norm1"), width)?,
            attn: Attention::new(builder.under("attn"), config)?,
            scale1,
            norm2: LayerNorm::new(builder.under("norm2"), width)?,
            mlp: Mlp::new(builder.under("mlp"), config, hidden)?,
            scale2,
            position: (index + 1) as f64 / config.depth as f64,
        })
    }

    /// Of `x` (B, N, D).
    fn forward(&self, x: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let attended = self.attn.forward(x, &self.norm1, &self.scale1)?; // (B, N, D)
        let x = (x + self.drop(attended, noise)?)?;
        let mapped = self.mlp.forward(&x, &self.norm2, &self.scale2)?; // (B, N, D)
        &x + self.drop(mapped, noise)?
    }

    /// Dropout, which may follow layer scale since both multiply, and drop-path.
    fn drop(&self, branch: Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let branch = noise.dropout(branch)?;
        noise.drop_path(branch, self.position)
    }
}
