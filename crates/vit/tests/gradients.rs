//! Every trainable tensor receives a gradient, and the right one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{about, targets, tokens};
use vit::{Fuse, Model, ModelConfig, Noise, Pool, cross_entropy};

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

fn loss(model: &Model) -> Tensor {
    let tokens = tokens(model.about(), IMAGES, 0.3, model.dtype());
    let logits = model.training_logits(&tokens, &mut Noise::off()).unwrap();
    cross_entropy(&logits, &targets(IMAGES, model.dtype()), SMOOTHING).unwrap().mean
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
