use kernels::Isa;
use rayon::prelude::*;

use super::{
    Chunk, Layout, Linear, Masks,
    block::Block,
    chunk::Targets,
    embed::Embed,
    weight_gradient::{self, Layer, Pick},
};
use crate::{About, ModelConfig, Tokens, VitError};

/// The layers of a pre-norm ViT, with weights ready to multiply.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) isa: Isa,
    pub(crate) config: ModelConfig,
    pub(crate) embed: Embed,
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Linear,
}

impl Network {
    pub(crate) fn new(isa: Isa, layout: &Layout, about: &About) -> Result<Self, VitError> {
        let config = about.model.clone();
        let shape = (config.width, about.classes.len());
        Ok(Self {
            isa,
            embed: Embed::new(isa, layout, &config, &about.inputs)?,
            blocks: (0..config.depth).map(|index| Block::new(isa, layout, &config, index)).collect::<Result<_, _>>()?,
            head: Linear::new(isa, layout, &config, "head", shape)?.after(layout, "norm")?,
            config,
        })
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

    /// Logits of all images, in the chunks.
    pub(crate) fn forward(&self, chunks: &mut [Chunk], tokens: &[Tokens], masks: &Masks) {
        chunks.par_iter_mut().with_max_len(1).for_each(|chunk| chunk.forward(self, tokens, masks));
    }

    /// Losses in the chunks, and the gradient of every parameter in `gradients`.
    pub(crate) fn forward_backward(
        &mut self,
        chunks: &mut [Chunk],
        tokens: &[Tokens],
        targets: &Targets<'_>,
        masks: &Masks,
        weights: &[f32],
        gradients: &mut [f32],
    ) {
        let last = self.blocks.len() - 1;
        let network = &*self;
        chunks.par_iter_mut().with_max_len(1).for_each(|chunk| {
            chunk.forward(network, tokens, masks);
            chunk.backward_from_loss(network, targets);
            chunk.backward_through(network, last, masks);
        });
        for index in (0..=last).rev() {
            if index < last {
                // The block before is finished on the side: a thread alone takes a while for it.
                let (network, behind) = (&*self, &self.blocks[index + 1]);
                rayon::join(
                    || {
                        let through = |chunk: &mut Chunk| chunk.backward_through(network, index, masks);
                        chunks.par_iter_mut().with_max_len(1).for_each(through);
                    },
                    || behind.finish(weights, gradients),
                );
            }
            let block = &mut self.blocks[index];
            let layer = |linear, output_grad: Pick, input: Pick| Layer { linear, block: index, output_grad, input };
            let layers = vec![
                layer(&mut block.qkv, |chunk, _| &chunk.scratch.qkv_grad, |chunk, block| &chunk.saved[block].normal1),
                layer(
                    &mut block.proj,
                    |chunk, _| &chunk.scratch.proj_grad,
                    |chunk, block| &chunk.saved[block].attended,
                ),
                layer(
                    &mut block.fc1,
                    |chunk, _| &chunk.scratch.hidden_grad,
                    |chunk, block| &chunk.saved[block].normal2,
                ),
                layer(&mut block.fc2, |chunk, _| &chunk.scratch.fc2_grad, |chunk, _| &chunk.scratch.activated),
            ];
            weight_gradient::sum(self.isa, layers, chunks);
            block.sum_gains_gradients(chunks.iter().map(|chunk| chunk.scratch.gains_grad.as_slice()));
        }
        self.blocks[0].finish(weights, gradients);
        let (output_grad, input): (Pick, Pick) = (|chunk, _| &chunk.logits_grad, |chunk, _| &chunk.pooled);
        let head = Layer { linear: &mut self.head, block: 0, output_grad, input };
        weight_gradient::sum(self.isa, vec![head], chunks);
        self.head.finish(weights, gradients);

        chunks.iter_mut().for_each(|chunk| chunk.backward_to_embed(self, masks));
        self.embed.backward(chunks.iter().map(|chunk| &chunk.grad), gradients);
        weight_gradient::sum_projections(self.isa, &mut self.embed, tokens, chunks);
        self.embed.sources.iter().for_each(|(projection, _)| projection.finish(weights, gradients));
    }
}
