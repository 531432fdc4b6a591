//! Every trainable tensor receives a gradient, and the right one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use common::{about, targets, tokens};
use vit::{
    About, Batch, Draws, Fuse, Model, ModelConfig, Noise, Pool, Precision, Predictor, Recipe, Trainer, cross_entropy,
};

const IMAGES: usize = 4;
const SMOOTHING: f64 = 0.1;

type Change = fn(&mut ModelConfig);

fn configurations() -> Vec<(&'static str, Change)> {
    vec![
        ("sum, mean", |_| {}),
        ("seq, cls, qk_norm", |config| {
            (config.fuse, config.pool, config.qk_norm) = (Fuse::Seq, Pool::Cls, true);
        }),
        ("seq, mean, no layer scale", |config| {
            (config.fuse, config.layer_scale) = (Fuse::Seq, 0.0);
        }),
        ("sum, cls, qk_norm, no layer scale", |config| {
            (config.pool, config.qk_norm, config.layer_scale) = (Pool::Cls, true, 0.0);
        }),
        ("one head, equal_lr, wide initialisation", |config| {
            (config.heads, config.equal_lr, config.init_gain) = (1, true, 1.5);
        }),
    ]
}

/// How much each image counts.
fn weights(images: usize) -> Vec<f32> {
    (0..images).map(|image| 0.25 + image as f32).collect()
}

fn loss(model: &Model) -> Tensor {
    let tokens = tokens(model.about(), IMAGES, 0.3, model.dtype());
    let logits = model.training_logits(&tokens, &mut Noise::off()).unwrap();
    cross_entropy(&logits, &targets(IMAGES, model.dtype()), &weights(IMAGES), SMOOTHING).unwrap().mean
}

#[test]
fn every_parameter_receives_a_gradient() {
    for (name, change) in configurations() {
        let model = Model::new(about(change), 1, DType::F32, &Device::Cpu).unwrap();
        let gradients = loss(&model).backward().unwrap();
        for (parameter, var) in model.parameters().iter() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
            let squares = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(squares.is_finite() && squares > 0.0, "{name}: {parameter} has gradient norm² {squares}");
        }
    }
}

#[test]
fn gradients_agree_with_central_differences() {
    // In f64 a difference over 2e-5 has an error of about 1e-10 from the third derivative and 1e-11 from
    // rounding.
    let (delta, relative, absolute) = (1e-5, 1e-6, 1e-9);
    for (name, change) in configurations() {
        let model = Model::new(about(change), 2, DType::F64, &Device::Cpu).unwrap();
        let gradients = loss(&model).backward().unwrap();
        for (parameter, var) in model.parameters().iter() {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            // A few entries of each tensor, the largest gradient among them.
            let largest = (0..gradient.len()).max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs())).unwrap();
            for index in [0, gradient.len() / 2, gradient.len() - 1, largest] {
                let loss_at = |shift: f64| {
                    let mut shifted = values.clone();
                    shifted[index] += shift;
                    var.set(&Tensor::from_vec(shifted, var.shape(), &Device::Cpu).unwrap()).unwrap();
                    loss(&model).to_scalar::<f64>().unwrap()
                };
                let numeric = (loss_at(delta) - loss_at(-delta)) / (2.0 * delta);
                loss_at(0.0);
                let error = (numeric - gradient[index]).abs();
                let allowed = absolute + relative * numeric.abs();
                assert!(error < allowed, "{name}: {parameter}[{index}] {} differs from {numeric}", gradient[index]);
            }
        }
    }
}

#[test]
fn evaluation_sees_the_trained_weights() {
    let model = Model::new(about(|config| config.qk_norm = true), 3, DType::F32, &Device::Cpu).unwrap();
    let tokens = tokens(model.about(), IMAGES, 0.0, DType::F32);
    let (_, var) = model.parameters().iter().find(|(name, _)| *name == "head.weight").unwrap();
    var.set(&(var.as_detached_tensor() * 3.0).unwrap()).unwrap();
    let trained = model.training_logits(&tokens, &mut Noise::off()).unwrap();
    let evaluated = model.logits(&tokens).unwrap();
    assert_eq!(trained.to_vec2::<f32>().unwrap(), evaluated.to_vec2::<f32>().unwrap());
    assert!(!evaluated.track_op());
}

/// The batch that [`loss`] is of.
fn the_batch(about: &About) -> Batch {
    Batch { weights: weights(IMAGES), ..common::batch(about, IMAGES, 0.3) }
}

/// Relative L2 distance.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-9)
}

#[test]
fn the_step_written_out_agrees_with_autograd() {
    let wide: [(&str, Change); 3] = [
        ("as wide as the default", |config| (config.width, config.mlp_ratio) = (64, 4)),
        ("grid 14, three heads", |config| (config.grid, config.width, config.heads) = (14, 48, 3)),
        ("dropout", |config| (config.dropout, config.qk_norm) = (0.2, true)),
    ];
    for (name, change) in configurations().into_iter().chain(wide) {
        let about = about(change);
        let model = Model::new(about.clone(), 4, DType::F32, &Device::Cpu).unwrap();
        let recipe = Recipe { drop_path: 0.3, label_smoothing: SMOOTHING, ..Recipe::paper() };
        // More images than a chunk has.
        let batch = Batch { weights: weights(11), ..common::batch(&about, 11, 0.3) };
        let mut written_out = Trainer::new(&model, &recipe, Precision::F32).unwrap();
        let mut rounded = Trainer::new(&model, &recipe, Precision::Bf16).unwrap();
        let mut autograd = Trainer::autograd(&model, &recipe).unwrap();
        let gradient = |trainer: &mut Trainer| {
            let gradient = trainer.gradient(&model, &batch, &mut Draws::new(3, 1), 1).unwrap();
            (gradient, trainer.gradients(&model).unwrap())
        };
        let (ours, our_gradients) = gradient(&mut written_out);
        let (rounded, rounded_gradients) = gradient(&mut rounded);
        let (theirs, their_gradients) = gradient(&mut autograd);
        assert!((ours.loss - theirs.loss).abs() < 1e-5, "{name}: loss {} and {}", ours.loss, theirs.loss);
        assert!((ours.norm / theirs.norm - 1.0).abs() < 1e-4, "{name}: norm {} and {}", ours.norm, theirs.norm);
        assert_eq!(ours.correct, theirs.correct, "{name}");
        assert_eq!(our_gradients.len(), model.parameters().len());
        for (parameter, ours) in &our_gradients {
            let error = apart(ours, &their_gradients[parameter]);
            assert!(error < 2e-4, "{name}: {parameter} is {error:.1e} off");
        }
        // A factor in bfloat16 is off by 2⁻⁹ at most; through two blocks and back errors add up to some percent.
        assert!((rounded.loss - theirs.loss).abs() < 5e-3, "{name}: loss {} and {}", rounded.loss, theirs.loss);
        assert!((rounded.norm / theirs.norm - 1.0).abs() < 2e-2, "{name}: norm {} and {}", rounded.norm, theirs.norm);
        let whole = |gradients: &BTreeMap<String, Vec<f32>>| gradients.values().flatten().copied().collect::<Vec<_>>();
        let error = apart(&whole(&rounded_gradients), &whole(&their_gradients));
        assert!((1e-5..4e-2).contains(&error), "{name}: in bfloat16 the gradient is {error:.1e} off");
        let logits = Predictor::new(&model).unwrap().logits(&batch).unwrap();
        let tokens = tokens(&about, 11, 0.3, DType::F32);
        let reference = model.logits(&tokens).unwrap().to_vec2::<f32>().unwrap();
        assert!(apart(&logits.concat(), &reference.concat()) < 1e-5, "{name}: logits");
    }
}

#[test]
fn the_step_written_out_agrees_with_differences() {
    // The loss along the gradient's own direction, in f32: its rounding of 1e-7 over a distance of 2e-2 allows 1e-5.
    for (name, change) in configurations() {
        let about = about(change);
        let model = Model::new(about.clone(), 2, DType::F32, &Device::Cpu).unwrap();
        let recipe = Recipe { label_smoothing: SMOOTHING, ..Recipe::paper() };
        let gradient = |model: &Model| {
            let mut trainer = Trainer::new(model, &recipe, Precision::F32).unwrap();
            let gradient = trainer.gradient(model, &the_batch(&about), &mut Draws::new(0, 1), 1).unwrap();
            (gradient, trainer.gradients(model).unwrap())
        };
        let (here, gradients) = gradient(&model);
        for parameter in gradients.keys() {
            let var = model.parameters().get(parameter).unwrap();
            let start = var.as_detached_tensor().copy().unwrap();
            let along = Tensor::from_slice(&gradients[parameter], var.shape(), &Device::Cpu).unwrap();
            let norm = f64::from(along.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt();
            let distance = 2e-2;
            let loss_at = |shift: f64| {
                var.set(&(&start + (&along * (shift / norm)).unwrap()).unwrap()).unwrap();
                gradient(&model).0.loss
            };
            let slope = (loss_at(distance) - loss_at(-distance)) / (2.0 * distance);
            loss_at(0.0);
            let error = (slope - norm).abs();
            assert!(error < 1e-5 + 5e-3 * norm, "{name}: {parameter} rises by {slope}, not {norm}");
        }
        assert_eq!(gradient(&model).0.loss, here.loss, "{name}: the weights were put back");
    }
}

#[test]
fn tokens_of_another_shape_are_named() {
    let model = Model::new(about(|_| {}), 0, DType::F32, &Device::Cpu).unwrap();
    let mut tokens = tokens(model.about(), 2, 0.0, DType::F32);
    tokens[1] = tokens[1].narrow(2, 0, 2).unwrap();
    let error = model.logits(&tokens).unwrap_err().to_string();
    assert_eq!(error, "the token tensor of fm4 has shape [2, 49, 2], expected [2, 49, 3]");
    let error = model.logits(&tokens[..1]).unwrap_err().to_string();
    assert_eq!(error, "got the tokens of 1 sources, expected 2");
}
