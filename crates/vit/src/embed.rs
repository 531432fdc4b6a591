//! Shapes: B batch, N tokens of one source, S sources, W a source's token width, D width.

use candle_core::{Result, Tensor};

use crate::{
    Fuse, Input, ModelConfig, Pool,
    layers::Linear,
    parameters::{Builder, Init},
};

/// Standard deviation of the initial source and position embeddings: that of the projected tokens which they are
/// added to, so that a token says from the start where it lies. (Faces are aligned; with timm's 0.02 the network
/// has to find the places first and learns pixels three times slower, see `docs/open-details.md`.)
const EMBEDDING_STD: f64 = 1.0;

/// Tokens of all sources to one sequence: projection, source embedding, position embedding, fusion.
#[derive(Debug)]
pub(crate) struct Embed {
    sources: Vec<SourceEmbed>,
    /// One for the places of the grid, shared by the sources: (N, D).
    position: Tensor,
    /// (1, 1, D), with `pool = cls`.
    class_token: Option<Tensor>,
    fuse: Fuse,
}

#[derive(Debug)]
struct SourceEmbed {
    projection: Linear,
    /// Tells the source's tokens from others at the same place: (D).
    source: Tensor,
}

impl Embed {
    pub(crate) fn new(builder: &mut Builder<'_>, config: &ModelConfig, inputs: &[Input]) -> Result<Self> {
        let width = config.width;
        let sources = inputs
            .iter()
            .map(|input| {
                let name = input.source.name();
                Ok(SourceEmbed {
                    projection: Linear::new(builder.under("embed").under(name), config, input.token_width, width)?,
                    source: builder.under("source_embed").get(name, &[width], Init::Normal(EMBEDDING_STD))?,
                })
            })
            .collect::<Result<_>>()?;
        let position = builder.get("pos_embed", &[config.tokens_per_source(), width], Init::Normal(EMBEDDING_STD))?;
        let class_token = match config.pool {
            Pool::Mean => None,
            Pool::Cls => Some(builder.get("cls_token", &[1, 1, width], Init::Normal(EMBEDDING_STD))?),
        };
        Ok(Self { sources, position, class_token, fuse: config.fuse })
    }

    /// Of one tensor (B, N, W) per source: (B, N, D) summed, (B, S·N, D) in sequence, and one token more in
    /// front with a class token.
    pub(crate) fn forward(&self, tokens: &[Tensor]) -> Result<Tensor> {
        let embedded = self
            .sources
            .iter()
            .zip(tokens)
            .map(|(source, tokens)| {
                // Joined before they meet the batch, the two embeddings cost one addition.
                let place = self.position.broadcast_add(&source.source)?; // (N, D)
                source.projection.forward(tokens)?.broadcast_add(&place) // (B, N, D)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        let mut sequence = match self.fuse {
            Fuse::Seq => Tensor::cat(&embedded, 1)?, // (B, S·N, D)
            Fuse::Sum => {
                let (first, others) = embedded
                    .split_first()
                    .ok_or_else(|| candle_core::Error::Msg("no tokens of any source".to_owned()))?;
                others.iter().try_fold(first.clone(), |sum, next| sum + next)? // (B, N, D)
            }
        };
        if let Some(class_token) = &self.class_token {
            let (batch, _, width) = sequence.dims3()?;
            sequence = Tensor::cat(&[&class_token.broadcast_as((batch, 1, width))?, &sequence], 1)?; // (B, 1+N, D)
        }
        Ok(sequence)
    }
}
