//! Once warm, a training step asks for no memory of size.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;

use candle_core::{DType, Device};
use half::f16;
use kernels::{Patches, Standardise};
use sources::Source;
use testdata::asked_bytes;
use vit::{About, Batch, Draws, Input, Model, ModelConfig, Precision, Recipe, Tokens, Trainer};

#[global_allocator]
static ALLOCATOR: testdata::Counted = testdata::Counted;

#[test]
fn a_warm_step_asks_for_no_memory_of_size() {
    const IMAGES: usize = 32;
    let patches = Patches { side: 14, grid: 7, patch_side: 2, channels: 256 };
    let standardise = Arc::new(Standardise::new(&[[0.1, 1.4]; 256], patches, true));
    let maps = (0..IMAGES * patches.values_per_map()).map(|i| f16::from_f32((i as f32 * 0.7).sin())).collect();
    let batch = Batch {
        images: IMAGES,
        tokens: [(Source::Fm3, Tokens::Stored(maps, standardise))].into(),
        targets: vec![0.5; 2 * IMAGES],
        weights: vec![1.5; IMAGES],
        ..Batch::default()
    };
    for (precision, dropout) in [(Precision::F32, 0.0), (Precision::Bf16, 0.0), (Precision::F32, 0.1)] {
        let about = About {
            model: ModelConfig { dropout, ..ModelConfig::default() },
            inputs: vec![Input { source: Source::Fm3, token_width: patches.token_width() }],
            classes: ["one", "other"].map(str::to_owned).to_vec(),
        };
        let model = Model::new(about, 0, DType::F32, &Device::Cpu).unwrap();
        let (recipe, mut draws) = (Recipe { drop_path: dropout, ..Recipe::robust() }, Draws::new(0, 1));
        let mut trainer = Trainer::new(&model, &recipe, precision).unwrap();
        // As many chunks as threads work at a time; a later step may be the first on which they all do.
        let mut asked: Vec<usize> = Vec::new();
        for step in 1..=8 {
            let before = asked_bytes();
            let gradient = trainer.gradient(&model, &batch, &mut draws, step).unwrap();
            trainer.update(&model, recipe.clip_factor(gradient.norm), recipe.lr_at(step), step).unwrap();
            asked.push(asked_bytes() - before);
        }
        let least = asked.iter().min().unwrap();
        println!("{precision}, dropout {dropout}: {asked:?} bytes");
        assert!(asked[0] > 1 << 20, "{precision}: the first step has to get its memory: {asked:?}");
        // Lists of layers and their parameters; the tokens of a single image, normalised, have 12,544 bytes.
        assert!(*least < 12_544, "{precision}, dropout {dropout}: {asked:?}");
    }
}
