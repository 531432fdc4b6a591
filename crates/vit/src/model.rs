//! Shapes: B batch, N tokens of one source, W a source's token width, K classes.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use sources::Source;

use crate::{
    Batch, Draws, ModelConfig, Noise, Parameters, Pool, VitError,
    config::at_least_one,
    error::check_shape,
    network::Network,
    parameters::Builder,
    tensor_file::{self, TensorFile},
};

/// Stream of [`Draws`] from which the initial weights come.
const INIT_STREAM: u64 = 0;

/// One source that a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Which one.
    pub source: Source,
    /// Numbers per token: channels × patch side², or patch side² once the channels are collapsed.
    pub token_width: usize,
}

/// What a model is, apart from its weights. Stored as JSON in `model.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Its architecture.
    pub model: ModelConfig,
    /// The sources that it reads, in the order in which it wants their tokens.
    pub inputs: Vec<Input>,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
}

impl About {
    /// Fails if a key of the configuration makes no sense, or there is no source, a token of no width, or no class.
    fn validate(&self) -> Result<(), VitError> {
        self.model.validate()?;
        at_least_one("number of sources", self.inputs.len())?;
        at_least_one("number of classes", self.classes.len())?;
        self.inputs.iter().try_for_each(|input| at_least_one("token width", input.token_width))
    }

    /// Names and shapes of the weights of such a model.
    fn shapes(&self) -> Result<Vec<(String, Vec<usize>)>, VitError> {
        self.validate()?;
        let mut shapes = Vec::new();
        Network::new(Builder::listed(&mut shapes), &self.model, &self.inputs, self.classes.len())?;
        Ok(shapes)
    }
}

/// A Vision Transformer over the token grids of one or several sources.
#[derive(Debug)]
pub struct Model {
    about: About,
    parameters: Parameters,
    trainable: Network,
    /// The same layers on the same storage, without the memory of a backward pass.
    frozen: Network,
    dtype: DType,
    device: Device,
}

impl Model {
    /// A new model with weights drawn from `seed`.
    ///
    /// # Errors
    /// If a key of the configuration makes no sense, or there is no source, a token of no width, or no class.
    pub fn new(about: About, seed: u64, dtype: DType, device: &Device) -> Result<Self, VitError> {
        about.validate()?;
        let mut parameters = Parameters::default();
        let mut draws = Draws::new(seed, INIT_STREAM);
        let (config, inputs, classes) = (&about.model, &about.inputs, about.classes.len());
        let builder = Builder::new(&mut parameters, &mut draws, dtype, device);
        let trainable = Network::new(builder, config, inputs, classes)?;
        let frozen = Network::new(Builder::detached(&parameters), config, inputs, classes)?;
        Ok(Self { about, parameters, trainable, frozen, dtype, device: device.clone() })
    }

    /// Reads a model that [`save`](Self::save) wrote, in f32.
    ///
    /// # Errors
    /// If the file is damaged, or a tensor is missing or has another shape than its place demands.
    pub fn load(path: &Path, device: &Device) -> Result<Self, VitError> {
        Self::of_file(tensor_file::read(path, device)?, path, device)
    }

    pub(crate) fn of_file(file: TensorFile<About>, path: &Path, device: &Device) -> Result<Self, VitError> {
        let TensorFile { about, tensors } = file;
        // Before any memory is taken: a few words of a file can describe a model of terabytes.
        for (name, shape) in about.shapes()? {
            stored(&tensors, &name, &shape, path)?;
        }
        let model = Self::new(about, 0, DType::F32, device)?;
        model.set_parameters(&tensors, "", path)?;
        Ok(model)
    }

    /// Writes the weights under their names, and what the model is under the metadata's only key, atomically.
    pub fn save(&self, path: &Path) -> Result<(), VitError> {
        tensor_file::write(path, &self.about, &self.tensors(""))
    }

    /// What the model is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The trainable tensors.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Type of the weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Logits (B, K) of one tensor (B, N, W) of standardised tokens per source, in the order of
    /// [`About::inputs`]. Nothing is dropped and nothing is kept for a backward pass.
    pub fn logits(&self, tokens: &[Tensor]) -> Result<Tensor, VitError> {
        self.check_tokens(tokens)?;
        Ok(self.frozen.forward(tokens, &mut Noise::off())?)
    }

    /// Where the model looks in each image of `batch`, by attention roll-out (Abnar & Zuidema 2020,
    /// <https://arxiv.org/abs/2005.00928>): for each image, how much of each place of the token grid (N) arrives where the
    /// logits are read, summing to 1. The blocks' attention, averaged over heads and with half of each token passing by, is
    /// multiplied up; sources that lie one after the other count together.
    ///
    /// # Errors
    /// If the batch is not what the model reads, or the device fails.
    pub fn attention_rollout(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, VitError> {
        let tokens = batch.token_tensors(self)?;
        let mut arrived: Option<Tensor> = None;
        for weights in self.frozen.attention(&tokens)? {
            let weights = weights.to_dtype(DType::F32)?.mean(1)?; // (B, N, N)
            let identity = Tensor::eye(weights.dim(1)?, DType::F32, &self.device)?;
            let mixed = weights.broadcast_add(&identity)?.affine(0.5, 0.0)?;
            arrived = Some(match arrived {
                Some(before) => mixed.matmul(&before)?,
                None => mixed,
            });
        }
        let Some(arrived) = arrived else { return Ok(vec![Vec::new(); batch.images]) };
        let (read, first) = match self.about.model.pool {
            Pool::Mean => (arrived.mean(1)?, 0),                    // (B, N)
            Pool::Cls => (arrived.narrow(1, 0, 1)?.squeeze(1)?, 1), // (B, N), the class token first
        };
        let places = self.about.model.tokens_per_source();
        let of_image = |read: Vec<f32>| {
            let mut grid = vec![0.0; places];
            read[first..].iter().enumerate().for_each(|(token, share)| grid[token % places] += share);
            let sum: f32 = grid.iter().sum();
            grid.iter_mut().for_each(|share| *share /= sum);
            grid
        };
        Ok(read.to_vec2::<f32>()?.into_iter().map(of_image).collect())
    }

    /// Logits (B, K) as [`logits`](Self::logits), with what `noise` drops, and differentiable in the
    /// parameters.
    pub fn training_logits(&self, tokens: &[Tensor], noise: &mut Noise<'_>) -> Result<Tensor, VitError> {
        self.check_tokens(tokens)?;
        Ok(self.trainable.forward(tokens, noise)?)
    }

    /// The weights by name, with `prefix` before each.
    pub(crate) fn tensors(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.parameters.iter().map(|(name, var)| (format!("{prefix}{name}"), var.as_detached_tensor())).collect()
    }

    /// Overwrites the weights with those in `tensors`, whose names have `prefix` before them; `path` is where
    /// they come from.
    pub(crate) fn set_parameters(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        prefix: &str,
        path: &Path,
    ) -> Result<(), VitError> {
        for (name, var) in self.parameters.iter() {
            let stored = stored(tensors, &format!("{prefix}{name}"), var.dims(), path)?;
            var.set(&stored.to_dtype(self.dtype)?)?;
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[Tensor]) -> Result<(), VitError> {
        let inputs = &self.about.inputs;
        if tokens.len() != inputs.len() {
            return Err(VitError::SourceCount { expected: inputs.len(), got: tokens.len() });
        }
        let batch = tokens.first().and_then(|first| first.dims().first().copied()).unwrap_or(0);
        for (input, tokens) in inputs.iter().zip(tokens) {
            let expected = [batch, self.about.model.tokens_per_source(), input.token_width];
            check_shape(tokens, &expected, || format!("the token tensor of {}", input.source))?;
        }
        Ok(())
    }
}

/// The tensor `name` of the file `path`, if it is there and has the shape `expected`.
pub(crate) fn stored<'a>(
    tensors: &'a BTreeMap<String, Tensor>,
    name: &str,
    expected: &[usize],
    path: &Path,
) -> Result<&'a Tensor, VitError> {
    let tensor = tensors.get(name).ok_or_else(|| VitError::Missing { path: path.to_owned(), name: name.to_owned() })?;
    check_shape(tensor, expected, || format!("tensor `{name}` of `{}`", path.display()))?;
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(model: ModelConfig) -> About {
        let inputs =
            vec![Input { source: Source::Fm4, token_width: 5 }, Input { source: Source::Orig, token_width: 3 }];
        About { model, inputs, classes: vec!["one".to_owned(), "two".to_owned()] }
    }

    #[test]
    fn shapes_are_those_of_the_weights() {
        let plain = ModelConfig { width: 8, depth: 2, ..ModelConfig::default() };
        let full = ModelConfig { pool: Pool::Cls, qk_norm: true, layer_scale: 0.1, ..plain.clone() };
        for about in [plain, full].map(about) {
            let mut shapes = about.shapes().unwrap();
            shapes.sort();
            let model = Model::new(about, 0, DType::F32, &Device::Cpu).unwrap();
            let weights = model.parameters().iter().map(|(name, var)| (name.to_owned(), var.dims().to_vec()));
            assert_eq!(shapes, weights.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_small_file_that_describes_a_huge_model_is_refused_unbuilt() {
        let huge = ModelConfig { width: 8192, depth: 256, mlp_ratio: 64, ..ModelConfig::default() };
        let mut about = about(huge);
        about.inputs[0].token_width = usize::MAX;
        let file = TensorFile { about, tensors: BTreeMap::new() };
        let error = Model::of_file(file, Path::new("model.safetensors"), &Device::Cpu).unwrap_err();
        assert!(matches!(error, VitError::Missing { .. }), "{error}");
    }
}
