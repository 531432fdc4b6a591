use kernels::{Begin, Isa, Precision};
use rayon::prelude::*;

use super::{
    Chunk, Chunks, Group, Layout, Linear, Masks, PIECE, block::Block, chunk::Targets, embed::Embed, linear::Sums,
};
use crate::{About, ModelConfig, Tokens, VitError};

/// The layers of a pre-norm ViT, with weights ready to multiply.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) isa: Isa,
    pub(crate) precision: Precision,
    pub(crate) config: ModelConfig,
    pub(crate) embed: Embed,
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Linear,
    /// Numbers in a group's sums.
    pub(crate) sums: usize,
}

impl Network {
    pub(crate) fn new(computed: (Isa, Precision), layout: &Layout, about: &About) -> Result<Self, VitError> {
        let config = about.model.clone();
        let shape = (config.width, about.classes.len());
        let mut sums = Sums::default();
        let embed = Embed::new(computed, layout, &mut sums, &config, &about.inputs)?;
        let block = |index| Block::new(computed, layout, &mut sums, &config, index);
        let blocks = (0..config.depth).map(block).collect::<Result<_, _>>()?;
        let head = Linear::new(computed, (layout, &mut sums), &config, "head", shape)?.after(layout, "norm")?;
        let (isa, precision) = computed;
        Ok(Self { isa, precision, embed, blocks, head, sums: sums.len(), config })
    }

    /// Tokens in the sequence.
    pub(crate) fn tokens(&self) -> usize {
        self.embed.tokens()
    }

    /// Takes the present `weights`.
    pub(crate) fn prepare(&mut self, weights: &[f32]) {
        let projections = self.embed.sources.iter_mut().map(|(projection, _)| projection);
        let blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        let linears: Vec<&mut Linear> = projections.chain(blocks).chain([&mut self.head]).collect();
        linears.into_par_iter().with_max_len(1).for_each(|linear| linear.prepare(weights));
        self.embed.prepare(weights);
        self.blocks.iter_mut().for_each(|block| block.prepare(weights));
    }

    /// Logits (B, K) of all images.
    pub(crate) fn logits(&self, chunks: &Chunks, tokens: &[&Tokens], masks: &Masks, logits: &mut [f32]) {
        let (images, classes) = (Chunk::images_of(self), self.head.outputs());
        logits.par_chunks_mut(images * classes).with_max_len(1).enumerate().for_each(|(index, logits)| {
            chunks.with(self, index * images, logits.len() / classes, |chunk| {
                chunk.forward(self, tokens, masks);
                let rows = logits.chunks_exact_mut(classes).enumerate();
                rows.for_each(|(image, logits)| logits.copy_from_slice(chunk.logits.row(image)));
            });
        });
    }

    /// Losses and hits in the groups, and the gradient of every parameter in `gradient`, which `layout` is that of.
    pub(crate) fn forward_backward(
        &self,
        (groups, chunks): (&mut [Group], &Chunks),
        tokens: &[&Tokens],
        targets: &Targets<'_>,
        masks: &Masks,
        (weights, layout): (&[f32], &Layout),
        gradient: &mut [f32],
    ) {
        let chunk_images = Chunk::images_of(self);
        groups.par_iter_mut().with_max_len(1).for_each(|group| {
            let Group { images, sums, losses, correct } = group;
            *correct = 0;
            let mut begin = Begin::Zero;
            for (index, losses) in losses.chunks_mut(chunk_images).enumerate() {
                chunks.with(self, images.start + index * chunk_images, losses.len(), |chunk| {
                    chunk.forward_backward(self, tokens, targets, masks, begin, sums);
                    losses.copy_from_slice(&chunk.losses);
                    *correct += chunk.correct;
                });
                begin = Begin::Present;
            }
        });
        let Some((first, others)) = groups.split_first_mut() else { return };
        first.sums.par_chunks_mut(PIECE).enumerate().for_each(|(index, sums)| {
            for other in &*others {
                let other = &other.sums[index * PIECE..][..sums.len()];
                sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
            }
        });
        let mut gradient = layout.cut(gradient);
        self.embed.finish(&mut first.sums, &mut gradient);
        self.blocks.iter().for_each(|block| block.finish(weights, &first.sums, &mut gradient));
        let projections = self.embed.sources.iter().map(|(projection, _)| projection);
        let blocks = self.blocks.iter().flat_map(Block::linears);
        let linears = projections.chain(blocks).chain([&self.head]);
        let parts: Vec<_> = linears.map(|linear| (linear, linear.take(&mut gradient))).collect();
        let sums = &first.sums;
        parts.into_par_iter().with_max_len(1).for_each(|(linear, mut part)| linear.finish(weights, sums, &mut part));
    }
}
