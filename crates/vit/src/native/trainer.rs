use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use kernels::{Isa, Precision, adam};
use rayon::prelude::*;

use super::{Chunk, Chunks, Group, Layout, Masks, Network, PIECE, chunk::Targets, group::MOST_GROUPS};
use crate::{Batch, Draws, Fuse, Gradient, Model, Recipe, Tokens, VitError, adam::adam_step, model::stored};

/// Weights, gradients and moments as one stretch of memory each, and all activations of a batch.
#[derive(Debug)]
pub(crate) struct Trainer {
    recipe: Recipe,
    layout: Layout,
    network: Network,
    weights: Vec<f32>,
    gradients: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    /// Which numbers weight decay applies to.
    decayed: Vec<bool>,
    groups: Vec<Group>,
    chunks: Chunks,
    masks: Masks,
}

impl Trainer {
    /// Starts from the weights of `model`, with moments of zero.
    pub(crate) fn new(computed: (Isa, Precision), model: &Model, recipe: &Recipe) -> Result<Self, VitError> {
        let layout = Layout::new(model.parameters());
        let network = Network::new(computed, &layout, model.about())?;
        let numbers = || vec![0.0; layout.len()];
        let mut weights = numbers();
        layout.read(model.parameters(), &mut weights)?;
        let of_parameter = |(_, slot, shape): (&str, super::Slot, &[usize])| vec![shape.len() >= 2; slot.range().len()];
        Ok(Self {
            recipe: recipe.clone(),
            gradients: numbers(),
            mean: numbers(),
            square: numbers(),
            decayed: layout.iter().flat_map(of_parameter).collect(),
            groups: Vec::new(),
            chunks: Chunks::default(),
            masks: Masks::off(network.blocks.len()),
            layout,
            network,
            weights,
        })
    }

    /// Bytes that training `model` with batches of `images` takes on `threads` threads, nearly.
    pub(crate) fn bytes(model: &Model, images: usize, threads: usize) -> u64 {
        // Weights, gradients, two moments, effective weights and two kinds of panels; the model's own and one mark apiece.
        const BYTES_PER_NUMBER: u64 = 7 * 4 + 4 + 1;
        let about = model.about();
        let numbers = model.parameters().elements() as u64;
        let grids = if about.model.fuse == Fuse::Seq { about.inputs.len() } else { 1 };
        let tokens = grids * about.model.tokens_per_source() + 1;
        let groups = MOST_GROUPS.min(images) as u64;
        let chunks = threads.min(images) as u64 * Chunk::bytes(&about.model, tokens);
        numbers * (BYTES_PER_NUMBER + groups * size_of::<f32>() as u64) + chunks
    }

    /// Loss of `batch`, whose `tokens` are those that the model reads, and, kept here, the gradient of every parameter; `draws` decides what is dropped.
    pub(crate) fn gradient(&mut self, batch: &Batch, tokens: &[&Tokens], draws: &mut Draws) -> Gradient {
        let (config, sequence) = (&self.network.config, self.network.tokens());
        Group::fit(&mut self.groups, &self.network, batch.images);
        self.masks.draw(draws, (config, self.recipe.drop_path), batch.images, sequence);
        self.network.prepare(&self.weights);
        let smoothing = self.recipe.label_smoothing;
        let (values, weights) = (&batch.targets[..], &batch.weights[..]);
        let targets = Targets { values, weights, smoothing, batch: batch.images };
        let Self { network, groups, chunks, masks, weights, layout, gradients, .. } = self;
        network.forward_backward((groups, chunks), tokens, &targets, masks, (weights, layout), gradients);
        let losses = groups.iter().flat_map(|group| &group.losses);
        Gradient {
            loss: losses.sum::<f64>() / batch.images as f64,
            correct: groups.iter().map(|group| group.correct).sum(),
            norm: norm(gradients),
        }
    }

    /// Moves the weights along the gradient multiplied by `gradient_scale`. `step` counts from 1.
    pub(crate) fn update(&mut self, gradient_scale: f64, lr: f64, step: usize) {
        let numbers = |decay: f64| adam_step(&self.recipe, gradient_scale, lr, step, decay);
        let (decayed, plain, isa) = (numbers(self.recipe.weight_decay), numbers(0.0), self.network.isa);
        self.weights
            .par_chunks_mut(PIECE)
            .zip(self.gradients.par_chunks(PIECE))
            .zip(self.mean.par_chunks_mut(PIECE))
            .zip(self.square.par_chunks_mut(PIECE))
            .zip(self.decayed.par_chunks(PIECE))
            .for_each(|((((weights, gradients), mean), square), decays)| {
                let mut from = 0;
                for run in decays.chunk_by(|a, b| a == b) {
                    let range = from..from + run.len();
                    let step = if run[0] { &decayed } else { &plain };
                    from = range.end;
                    let (weights, mean) = (&mut weights[range.clone()], &mut mean[range.clone()]);
                    adam(isa, step, weights, &gradients[range.clone()], mean, &mut square[range]);
                }
            });
    }

    /// L2 norm of all weights together.
    pub(crate) fn weight_norm(&self) -> f64 {
        norm(&self.weights)
    }

    /// Hands the weights to `model`.
    pub(crate) fn write_to(&self, model: &Model) -> Result<(), VitError> {
        self.layout.write(&self.weights, model.parameters())
    }

    /// Gradient of the last batch by parameter, in the parameter's layout.
    pub(crate) fn gradients(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.layout.iter().map(|(name, slot, _)| (name, slot.of(&self.gradients)))
    }

    /// The moments by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn moments(&self) -> Result<BTreeMap<String, Tensor>, VitError> {
        let mut tensors = BTreeMap::new();
        for (kind, values) in [("mean", &self.mean), ("square", &self.square)] {
            for (name, slot, shape) in self.layout.iter() {
                let tensor = Tensor::from_slice(slot.of(values), shape, &Device::Cpu)?;
                tensors.insert(format!("adam.{kind}.{name}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// Takes the weights of `model`, and the moments stored in the file `path`.
    pub(crate) fn restore(
        &mut self,
        model: &Model,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), VitError> {
        self.layout.read(model.parameters(), &mut self.weights)?;
        for (kind, values) in [("mean", &mut self.mean), ("square", &mut self.square)] {
            for (name, slot, shape) in self.layout.iter() {
                let tensor = stored(tensors, &format!("adam.{kind}.{name}"), shape, path)?;
                slot.of_mut(values).copy_from_slice(&tensor.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

/// L2 norm in double precision, summed piece by piece in their order.
fn norm(values: &[f32]) -> f64 {
    let squares = |piece: &[f32]| piece.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
    let pieces: Vec<f64> = values.par_chunks(PIECE).map(squares).collect();
    pieces.iter().sum::<f64>().sqrt()
}
