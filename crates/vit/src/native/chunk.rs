use kernels::{Attention, Begin, Multiplier, Rows, normalise, normalise_backward};

use super::{BranchMasks, Linear, Masks, Network, embed::TokenMemory};
use crate::{ModelConfig, Pool, Tokens, layers::LAYER_NORM_EPSILON, validation::first_largest};

/// Rows that a chunk should have: enough for the products to run at full speed, few enough for its activations to stay
/// in a core's cache from one layer to the next.
const CHUNK_ROWS: usize = 196;

/// Tokens of a batch, one slice (B, N, W) per source, and which of its images are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Images<'a> {
    pub(crate) tokens: &'a [&'a Tokens],
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// A few images on their way through the network, forward and backward.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The first of its images, and how many it has.
    pub(crate) first: usize,
    pub(crate) images: usize,
    tokens: TokenMemory,
    /// Tokens, (R, D).
    x: Rows,
    pub(crate) saved: Vec<Saved>,
    /// Normalised tokens behind the last block, (R, D), or the class tokens alone.
    last: Rows,
    normal: Rows,
    inverse_std: Vec<f32>,
    /// (images, D), (images, K).
    pub(crate) pooled: Rows,
    pub(crate) logits: Rows,
    pub(crate) logits_grad: Rows,
    pooled_grad: Rows,
    /// Cross-entropy of each image in nats.
    pub(crate) losses: Vec<f64>,
    pub(crate) correct: usize,
    /// Gradient of the tokens, (R, D).
    pub(crate) grad: Rows,
    pub(crate) scratch: Scratch,
}

/// What a block keeps for its backward pass.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Normalised tokens before attention and before the MLP, (R, D), with 1 / standard deviation.
    pub(crate) normal1: Rows,
    pub(crate) inverse_std1: Vec<f32>,
    pub(crate) normal2: Rows,
    pub(crate) inverse_std2: Vec<f32>,
    /// (R, 3D)
    pub(crate) qkv: Rows,
    /// (R, D)
    pub(crate) attended: Rows,
    /// What GELU is applied to, (R, 4D).
    pub(crate) hidden: Rows,
}

/// Memory that one block after the other uses.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Tokens of an image.
    pub(crate) tokens: usize,
    pub(crate) multiplier: Multiplier,
    pub(crate) attention: Attention,
    /// (R, D)
    pub(crate) narrow: Rows,
    /// What GELU gives, (R, 4D).
    pub(crate) activated: Rows,
    /// Gradients of a branch's end where a part of it is dropped, (R, D), of the MLP's hidden layer, (R, 4D), and of queries,
    /// keys and values, (R, 3D).
    pub(crate) branch_grad: Rows,
    pub(crate) hidden_grad: Rows,
    pub(crate) qkv_grad: Rows,
}

impl Scratch {
    /// Adds to `x` (R, D) the branch that ends with `linear` of `input`, less what is dropped of it.
    pub(crate) fn add_branch(&mut self, linear: &Linear, input: &Rows, masks: &ChunkMasks<'_>, x: &mut Rows) {
        if masks.is_off() {
            for row in 0..x.rows() {
                x.row_mut(row).iter_mut().zip(linear.bias()).for_each(|(x, bias)| *x += bias);
            }
            linear.forward(&mut self.multiplier, input.matrix(), Begin::Present, x.matrix_mut());
            return;
        }
        let begin = Begin::Bias(linear.bias());
        linear.forward(&mut self.multiplier, input.matrix(), begin, self.narrow.matrix_mut());
        for row in 0..x.rows() {
            masks.drop(row, self.tokens, self.narrow.row_mut(row));
            x.row_mut(row).iter_mut().zip(self.narrow.row(row)).for_each(|(x, branch)| *x += branch);
        }
    }
}

/// A chunk's part of a branch's masks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkMasks<'a> {
    dropout: &'a [f32],
    path: &'a [f32],
}

impl<'a> ChunkMasks<'a> {
    fn new(masks: &'a BranchMasks, first_image: usize, image_values: usize) -> Self {
        let from = |mask: &'a [f32], begin| if mask.is_empty() { mask } else { &mask[begin..] };
        Self { dropout: from(&masks.dropout, first_image * image_values), path: from(&masks.path, first_image) }
    }

    const fn is_off(&self) -> bool {
        self.dropout.is_empty() && self.path.is_empty()
    }

    /// The gradient of a branch's end, from that of the tokens, `grad` (R, D): itself, or in `memory` where a part of the
    /// branch is dropped.
    pub(crate) fn gradient<'b>(&self, tokens: usize, grad: &'b Rows, memory: &'b mut Rows) -> &'b Rows {
        if self.is_off() {
            return grad;
        }
        memory.reshape(grad.rows(), grad.columns());
        for row in 0..grad.rows() {
            let to = memory.row_mut(row);
            to.copy_from_slice(grad.row(row));
            self.drop(row, tokens, to);
        }
        memory
    }

    /// Drops what is to be dropped of `row`, whose number is `index`.
    fn drop(&self, index: usize, tokens: usize, row: &mut [f32]) {
        let path = self.path.get(index / tokens).copied().unwrap_or(1.0);
        match self.dropout.get(index * row.len()..(index + 1) * row.len()) {
            Some(mask) => row.iter_mut().zip(mask).for_each(|(value, mask)| *value *= mask * path),
            None => row.iter_mut().for_each(|value| *value *= path),
        }
    }
}

/// Class probabilities that a chunk learns from, (images, K) of the whole batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) values: &'a [f32],
    /// How much each image counts: (B); all alike if there are none.
    pub(crate) weights: &'a [f32],
    pub(crate) smoothing: f64,
    /// Images of the batch.
    pub(crate) batch: usize,
}

impl Chunk {
    /// Images of a chunk.
    pub(crate) fn images_of(network: &Network) -> usize {
        (CHUNK_ROWS / network.tokens()).max(1)
    }

    /// Bytes that the memory of one takes, nearly.
    pub(crate) fn bytes(config: &ModelConfig, tokens: usize) -> u64 {
        let rows = (CHUNK_ROWS / tokens).max(1) * tokens;
        let hidden = config.mlp_ratio;
        let (saved, scratch) = (config.depth * (6 + hidden), 9 + 2 * hidden);
        ((saved + scratch) * config.width * rows * size_of::<f32>()) as u64
    }

    /// Memory for `images` images.
    pub(crate) fn new(network: &Network, images: usize) -> Self {
        let (isa, config, tokens) = (network.isa, &network.config, network.tokens());
        let (width, rows, classes) = (config.width, images * tokens, network.head.outputs());
        let hidden = width * config.mlp_ratio;
        let narrow = || Rows::zeros(rows, width);
        let last_rows = if config.pool == Pool::Cls { images } else { rows };
        let saved = || Saved {
            normal1: narrow(),
            inverse_std1: vec![0.0; rows],
            normal2: narrow(),
            inverse_std2: vec![0.0; rows],
            qkv: Rows::zeros(rows, 3 * width),
            attended: narrow(),
            hidden: Rows::zeros(rows, hidden),
        };
        Self {
            first: 0,
            images,
            tokens: TokenMemory::default(),
            x: narrow(),
            saved: (0..config.depth).map(|_| saved()).collect(),
            last: Rows::zeros(last_rows, width),
            normal: Rows::zeros(last_rows, width),
            inverse_std: vec![0.0; last_rows],
            pooled: Rows::zeros(images, width),
            logits: Rows::zeros(images, classes),
            logits_grad: Rows::zeros(images, classes),
            pooled_grad: Rows::zeros(images, width),
            losses: vec![0.0; images],
            correct: 0,
            grad: narrow(),
            scratch: Scratch {
                tokens,
                multiplier: Multiplier::new(isa, network.precision),
                attention: Attention::new(isa, tokens, width, config.heads),
                narrow: narrow(),
                activated: Rows::zeros(rows, hidden),
                branch_grad: Rows::default(),
                hidden_grad: Rows::zeros(rows, hidden),
                qkv_grad: Rows::zeros(rows, 3 * width),
            },
        }
    }

    /// From the tokens to the logits.
    pub(crate) fn forward(&mut self, network: &Network, tokens: &[&Tokens], masks: &Masks) {
        let image_values = self.scratch.tokens * network.config.width;
        let images = Images { tokens, first: self.first, count: self.images };
        let multiplier = &mut self.scratch.multiplier;
        network.embed.forward(multiplier, &images, &mut self.tokens, &mut self.x); // (R, D)
        if !masks.embed.is_empty() {
            let mask = masks.embed[self.first * image_values..].chunks_exact(network.config.width);
            for (row, mask) in (0..self.x.rows()).zip(mask) {
                self.x.row_mut(row).iter_mut().zip(mask).for_each(|(x, mask)| *x *= mask);
            }
        }
        for ((block, saved), masks) in network.blocks.iter().zip(&mut self.saved).zip(&masks.branches) {
            let masks = masks.each_ref().map(|branch| ChunkMasks::new(branch, self.first, image_values));
            block.forward(&mut self.x, saved, &mut self.scratch, &masks);
        }
        self.pool(network);
        let head = &network.head;
        let multiplier = &mut self.scratch.multiplier;
        head.forward(multiplier, self.pooled.matrix(), Begin::Bias(head.bias()), self.logits.matrix_mut()); // (images, K)
    }

    /// One vector per image: the mean of its normalised tokens, or its class token's.
    fn pool(&mut self, network: &Network) {
        let tokens = self.scratch.tokens;
        match network.config.pool {
            Pool::Mean => self.last.values_mut().copy_from_slice(self.x.values()),
            Pool::Cls => {
                (0..self.images).for_each(|image| self.last.row_mut(image).copy_from_slice(self.x.row(image * tokens)));
            }
        }
        normalise(network.isa, &self.last, LAYER_NORM_EPSILON as f32, &mut self.normal, &mut self.inverse_std);
        let per_image = self.normal.rows() / self.images;
        for image in 0..self.images {
            let pooled = self.pooled.row_mut(image);
            pooled.fill(0.0);
            for row in image * per_image..(image + 1) * per_image {
                pooled.iter_mut().zip(self.normal.row(row)).for_each(|(sum, value)| *sum += value);
            }
            pooled.iter_mut().for_each(|sum| *sum /= per_image as f32);
        }
    }

    /// Losses, hits and, in a group's `sums`, begin + the gradients of all products.
    pub(crate) fn forward_backward(
        &mut self,
        network: &Network,
        tokens: &[&Tokens],
        targets: &Targets<'_>,
        masks: &Masks,
        begin: Begin<'_>,
        sums: &mut [f32],
    ) {
        self.forward(network, tokens, masks);
        self.backward_from_loss(network, targets);
        network.head.sum_gradients(&mut self.scratch.multiplier, &self.logits_grad, &self.pooled, begin, sums);
        let image_values = self.scratch.tokens * network.config.width;
        for ((block, saved), masks) in network.blocks.iter().zip(&self.saved).zip(&masks.branches).rev() {
            let masks = masks.each_ref().map(|branch| ChunkMasks::new(branch, self.first, image_values));
            block.backward(&mut self.grad, saved, &mut self.scratch, &masks, begin, sums);
        }
        self.backward_to_embed(network, masks);
        let images = Images { tokens, first: self.first, count: self.images };
        let multiplier = &mut self.scratch.multiplier;
        network.embed.sum_gradients(multiplier, &images, &mut self.tokens, &self.grad, begin, sums);
    }

    /// Losses, hits and the gradient of the tokens behind the last block.
    fn backward_from_loss(&mut self, network: &Network, targets: &Targets<'_>) {
        self.cross_entropy(targets);
        let multiplier = &mut self.scratch.multiplier;
        network.head.backward(multiplier, self.logits_grad.matrix(), self.pooled_grad.matrix_mut()); // (images, D)
        let per_image = self.normal.rows() / self.images;
        // `last` has done its duty.
        for row in 0..self.normal.rows() {
            let from = self.pooled_grad.row(row / per_image).iter();
            self.last.row_mut(row).iter_mut().zip(from).for_each(|(to, grad)| *to = grad / per_image as f32);
        }
        self.grad.values_mut().fill(0.0);
        match network.config.pool {
            Pool::Mean => normalise_backward(network.isa, &self.normal, &self.inverse_std, &self.last, &mut self.grad),
            Pool::Cls => {
                self.pooled_grad.values_mut().fill(0.0);
                let x_grad = &mut self.pooled_grad;
                normalise_backward(network.isa, &self.normal, &self.inverse_std, &self.last, x_grad);
                for image in 0..self.images {
                    self.grad.row_mut(image * self.scratch.tokens).copy_from_slice(self.pooled_grad.row(image));
                }
            }
        }
    }

    /// Weighted cross-entropy against soft targets, of which a part is spread evenly over the classes, with its gradient
    /// weight × (softmax − target) / B.
    fn cross_entropy(&mut self, targets: &Targets<'_>) {
        let classes = self.logits.columns();
        self.correct = 0;
        for image in 0..self.images {
            let target = &targets.values[(self.first + image) * classes..][..classes];
            let weight = f64::from(targets.weights.get(self.first + image).copied().unwrap_or(1.0));
            let logits = self.logits.row(image);
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            self.correct += usize::from(first_largest(logits) == first_largest(target));
            let mut loss = 0.0;
            for (class, grad) in self.logits_grad.row_mut(image).iter_mut().enumerate() {
                let shifted = f64::from(logits[class] - largest);
                let target = f64::from(target[class]) * (1.0 - targets.smoothing) + targets.smoothing / classes as f64;
                loss -= target * (shifted - total.ln());
                *grad = (weight * (shifted.exp() / total - target) / targets.batch as f64) as f32;
            }
            self.losses[image] = weight * loss;
        }
    }

    /// From the gradient of the tokens before the first block to that of those before their dropout.
    fn backward_to_embed(&mut self, network: &Network, masks: &Masks) {
        let width = network.config.width;
        if !masks.embed.is_empty() {
            let mask = masks.embed[self.first * self.scratch.tokens * width..].chunks_exact(width);
            for (row, mask) in (0..self.grad.rows()).zip(mask) {
                self.grad.row_mut(row).iter_mut().zip(mask).for_each(|(grad, mask)| *grad *= mask);
            }
        }
    }
}
