//! Small models and data whose every number follows from a formula.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(dead_code, reason = "each test binary uses a part")]

use candle_core::{DType, Device, Tensor};
use sources::Source;
use vit::{About, Batch, Batches, BoxError, Input, Model, ModelConfig, Predictor, Tally, Tokens, Validation};

pub const CLASSES: usize = 3;

/// A model of two sources, fm2 and fm4, with tokens of width 5 and 3.
pub fn about(change: impl FnOnce(&mut ModelConfig)) -> About {
    let small = ModelConfig { width: 8, depth: 2, heads: 2, mlp_ratio: 2, ..ModelConfig::default() };
    let mut model = ModelConfig { layer_scale: 0.1, equal_lr: false, ..small };
    change(&mut model);
    About {
        model,
        inputs: vec![Input { source: Source::Fm2, token_width: 5 }, Input { source: Source::Fm4, token_width: 3 }],
        classes: ["neutral", "happiness", "surprise"].map(str::to_owned).to_vec(),
    }
}

/// `scale` · sin(`offset` + 0.37 · i) for element i.
pub fn wave(shape: &[usize], scale: f64, offset: f64, dtype: DType) -> Tensor {
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|index: usize| scale * (offset + 0.37 * index as f64).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Tokens of `images` images for each input of `about`.
pub fn tokens(about: &About, images: usize, offset: f64, dtype: DType) -> Vec<Tensor> {
    let places = about.model.tokens_per_source();
    about.inputs.iter().map(|input| wave(&[images, places, input.token_width], 1.0, offset, dtype)).collect()
}

/// Soft targets: image i is mostly of class i modulo the number of classes.
pub fn targets(images: usize, dtype: DType) -> Tensor {
    let values: Vec<f64> = (0..images * CLASSES)
        .map(|index| if index / CLASSES % CLASSES == index % CLASSES { 0.8 } else { 0.1 })
        .collect();
    Tensor::from_vec(values, (images, CLASSES), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// [`tokens`] and [`targets`] as a batch.
pub fn batch(about: &About, images: usize, offset: f64) -> Batch {
    let host = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let tokens = tokens(about, images, offset, DType::F32);
    let of_source = |(input, tokens): (&Input, &Tensor)| (input.source, Tokens::Ready(host(tokens)));
    let tokens = about.inputs.iter().zip(&tokens).map(of_source).collect();
    Batch { images, tokens, targets: host(&targets(images, DType::F32)), ..Batch::default() }
}

/// The standardised tokens of one source.
pub fn ready(tokens: &mut Tokens) -> &mut Vec<f32> {
    match tokens {
        Tokens::Ready(values) => values,
        Tokens::Stored(..) => panic!("stored tokens"),
    }
}

/// Batches that a function makes.
pub struct Made<F> {
    make: F,
    last: Batch,
}

/// Batches that `make` makes.
pub fn made<F: FnMut(usize) -> Result<Batch, BoxError>>(make: F) -> Made<F> {
    Made { make, last: Batch::default() }
}

impl<F: FnMut(usize) -> Result<Batch, BoxError>> Batches for Made<F> {
    fn batch(&mut self, index: usize) -> Result<&Batch, BoxError> {
        self.last = (self.make)(index)?;
        Ok(&self.last)
    }
}

/// Validation on six images.
pub fn validate(predictor: &mut Predictor<'_>) -> Result<Validation, BoxError> {
    let batch = batch(predictor.about(), 6, 0.5);
    let mut tally = Tally::default();
    tally.add(&predictor.logits(&batch)?, &batch.targets);
    tally.finish().ok_or_else(|| "no images".into())
}

/// All weights, one after the other, as bits.
pub fn weight_bits(model: &Model) -> Vec<u32> {
    let values = |var: &candle_core::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    model.parameters().iter().flat_map(|(_, var)| values(var)).map(f32::to_bits).collect()
}
