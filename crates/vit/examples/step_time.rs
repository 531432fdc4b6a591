//! Seconds per training step on random tokens: `cargo run --release -p vit --example step_time [WIDTH DEPTH HEADS]`.
#![allow(clippy::unwrap_used, reason = "a measurement, not part of the library")]

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sources::Source;
use vit::{About, Adam, Input, Model, ModelConfig, Noise, Recipe, cross_entropy, gradient_norm};

const IMAGES: usize = 64;
const TOKEN_WIDTH: usize = 2048;
const STEPS: usize = 12;

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let (width, depth, heads) = match arguments[..] {
        [width, depth, heads] => (width, depth, heads),
        _ => (64, 4, 2),
    };
    let about = About {
        model: ModelConfig { width, depth, heads, ..ModelConfig::default() },
        inputs: vec![Input { source: Source::Fm2, token_width: TOKEN_WIDTH }],
        classes: (0..6).map(|class| class.to_string()).collect(),
    };
    let recipe = Recipe::paper();
    let model = Model::new(about, 0, DType::F32, &Device::Cpu).unwrap();
    let mut adam = Adam::new(&recipe, model.parameters()).unwrap();
    let tokens = Tensor::randn(0f32, 1.0, (IMAGES, 49, TOKEN_WIDTH), &Device::Cpu).unwrap();
    let targets = Tensor::full(1f32 / 6.0, (IMAGES, 6), &Device::Cpu).unwrap();
    let mut times = Vec::new();
    for step in 1..=STEPS {
        let begun = Instant::now();
        let logits = model.training_logits(std::slice::from_ref(&tokens), &mut Noise::off()).unwrap();
        let loss = cross_entropy(&logits, &targets, 0.0).unwrap().mean;
        let forward_s = begun.elapsed().as_secs_f64();
        let gradients = loss.backward().unwrap();
        let backward_s = begun.elapsed().as_secs_f64() - forward_s;
        gradient_norm(model.parameters(), &gradients).unwrap();
        adam.step(model.parameters(), &gradients, 1.0, recipe.lr, step).unwrap();
        times.push((begun.elapsed().as_secs_f64(), forward_s, backward_s));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (step_s, forward_s, backward_s) = times[STEPS / 2];
    println!(
        "step {step_s:.4} s: forward {forward_s:.4}, backward {backward_s:.4}, update {:.4}",
        step_s - forward_s - backward_s
    );
}
