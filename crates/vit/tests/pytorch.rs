//! Ten training steps agree with PyTorch: losses, gradient norms, and the logits that come of them. The
//! numbers are printed by `pytorch_reference.py` beside this file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use candle_core::{DType, Device};
use common::{CLASSES, about, targets, tokens, wave};
use vit::{
    Adam, Draws, Fuse, Model, ModelConfig, Noise, Optimizer, Pool, Precision, Predictor, Recipe, Trainer,
    cross_entropy, gradient_norm,
};

const LR: f64 = 0.01;
const IMAGES: usize = 4;

struct Reference {
    losses: [f64; 10],
    norms: [f64; 10],
    logits: [f64; CLASSES],
}

fn compare(change: fn(&mut ModelConfig), recipe: &Recipe, reference: &Reference) {
    let model = Model::new(about(change), 0, DType::F64, &Device::Cpu).unwrap();
    for (number, (_, var)) in model.parameters().iter().enumerate() {
        var.set(&wave(var.dims(), 0.5, number as f64, DType::F64)).unwrap();
    }
    // PyTorch adds 1e-6 to the norm that it clips by, here 0.1 to 1.5; otherwise the reference's ten digits count.
    let tolerance = if recipe.clip_norm > 0.0 { 1e-5 } else { 1e-8 };
    let assert_close = |got: f64, expected: f64, what: &str| {
        assert!((got - expected).abs() < tolerance * expected.abs(), "{what}: {got}, PyTorch has {expected}");
    };
    let tokens = tokens(model.about(), IMAGES, 0.3, DType::F64);
    let targets = targets(IMAGES, DType::F64);
    let mut adam = Adam::new(recipe, model.parameters()).unwrap();
    for step in 1..=reference.losses.len() {
        let logits = model.training_logits(&tokens, &mut Noise::off()).unwrap();
        let loss = cross_entropy(&logits, &targets, &[], recipe.label_smoothing).unwrap().mean;
        let gradients = loss.backward().unwrap();
        let norm = gradient_norm(model.parameters(), &gradients).unwrap();
        adam.step(model.parameters(), &gradients, recipe.clip_factor(norm), recipe.lr_at(step), step).unwrap();
        assert_close(loss.to_scalar::<f64>().unwrap(), reference.losses[step - 1], &format!("loss of step {step}"));
        assert_close(norm, reference.norms[step - 1], &format!("gradient norm of step {step}"));
    }
    let logits = model.logits(&tokens).unwrap().to_vec2::<f64>().unwrap();
    for (class, expected) in reference.logits.iter().enumerate() {
        assert_close(logits[0][class], *expected, &format!("logit of class {class}"));
    }
    compare_written_out(change, recipe, reference);
}

/// The step that training on the CPU takes, in f32.
fn compare_written_out(change: fn(&mut ModelConfig), recipe: &Recipe, reference: &Reference) {
    let model = Model::new(about(change), 0, DType::F32, &Device::Cpu).unwrap();
    for (number, (_, var)) in model.parameters().iter().enumerate() {
        var.set(&wave(var.dims(), 0.5, number as f64, DType::F32)).unwrap();
    }
    let assert_close = |got: f64, expected: f64, what: &str| {
        assert!((got - expected).abs() < 2e-4 * expected.abs(), "{what}: {got}, PyTorch has {expected}");
    };
    let batch = common::batch(model.about(), IMAGES, 0.3);
    let mut trainer = Trainer::new(&model, recipe, Precision::F32).unwrap();
    for step in 1..=reference.losses.len() {
        let gradient = trainer.gradient(&model, &batch, &mut Draws::new(0, 1), step).unwrap();
        trainer.update(&model, recipe.clip_factor(gradient.norm), recipe.lr_at(step), step).unwrap();
        assert_close(gradient.loss, reference.losses[step - 1], &format!("written out, loss of step {step}"));
        assert_close(gradient.norm, reference.norms[step - 1], &format!("written out, norm of step {step}"));
    }
    trainer.write_to(&model).unwrap();
    let logits = Predictor::new(&model).unwrap().logits(&batch).unwrap();
    for (class, expected) in reference.logits.iter().enumerate() {
        assert_close(f64::from(logits[0][class]), *expected, &format!("written out, logit of class {class}"));
    }
}

#[test]
fn adam_on_summed_tokens() {
    let recipe = Recipe { lr: LR, ..Recipe::paper() };
    let reference = Reference {
        losses: [
            1.1309071743,
            1.0963270387,
            1.0781258801,
            1.0741105378,
            1.0759223869,
            1.0757785387,
            1.0731040771,
            1.0703169565,
            1.0691262678,
            1.0693127063,
        ],
        norms: [
            0.3864651430,
            0.2458023984,
            0.1161321544,
            0.0948385440,
            0.1536444279,
            0.1675842844,
            0.1406253630,
            0.0970812417,
            0.0720041336,
            0.0851214899,
        ],
        logits: [0.9809244045, 0.3044277045, 0.2724283731],
    };
    compare(|_| {}, &recipe, &reference);
}

#[test]
fn adam_with_decay_on_a_sequence() {
    let recipe = Recipe { lr: LR, weight_decay: 0.05, label_smoothing: 0.1, ..Recipe::paper() };
    let reference = Reference {
        losses: [
            1.1773751950,
            1.1033513997,
            1.1002339801,
            1.0871349181,
            1.0793305853,
            1.0765216645,
            1.0760782967,
            1.0762439119,
            1.0762526766,
            1.0759624485,
        ],
        norms: [
            1.4424830140,
            0.5812906459,
            0.5203620764,
            0.3003936399,
            0.1347514604,
            0.0647428970,
            0.0836730600,
            0.1023701262,
            0.1030282087,
            0.0891785050,
        ],
        logits: [0.2430589805, -0.2954892091, -0.2445225196],
    };
    compare(|config| (config.fuse, config.pool, config.qk_norm) = (Fuse::Seq, Pool::Cls, true), &recipe, &reference);
}

#[test]
fn adamw_with_clipping_and_smoothing() {
    let recipe = Recipe {
        lr: LR,
        optimizer: Optimizer::AdamW,
        weight_decay: 0.5,
        clip_norm: 0.1,
        label_smoothing: 0.1,
        ..Recipe::paper()
    };
    let reference = Reference {
        losses: [
            1.1773998503,
            1.1033674134,
            1.0829006187,
            1.0810954136,
            1.0770605194,
            1.0737687054,
            1.0759923672,
            1.0760974844,
            1.0748546779,
            1.0743451107,
        ],
        norms: [
            1.4601321095,
            0.5806250154,
            0.1842748414,
            0.2290371819,
            0.1625339603,
            0.0147027444,
            0.1195361142,
            0.1089449496,
            0.0631671605,
            0.0717576822,
        ],
        logits: [0.2485044150, -0.2944964729, -0.2599446104],
    };
    compare(|config| (config.pool, config.qk_norm) = (Pool::Cls, true), &recipe, &reference);
}

#[test]
fn adam_with_equalised_learning_rates() {
    let recipe = Recipe { lr: LR, ..Recipe::paper() };
    let reference = Reference {
        losses: [
            1.0996008736,
            1.0928669082,
            1.0874305101,
            1.0827342387,
            1.0783367066,
            1.0742316236,
            1.0706023293,
            1.0675682790,
            1.0650531897,
            1.0628390561,
        ],
        norms: [
            0.1612532751,
            0.1436737767,
            0.1300011670,
            0.1176996356,
            0.1040673402,
            0.0884364378,
            0.0714935992,
            0.0546332522,
            0.0397134238,
            0.0284764659,
        ],
        logits: [0.7930523812, 0.2393629372, 0.3168989690],
    };
    compare(|config| config.equal_lr = true, &recipe, &reference);
}
