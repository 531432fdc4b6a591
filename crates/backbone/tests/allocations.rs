//! Once warm, a pass asks for no memory of size, whatever the precision.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use backbone::{Backbone, Engine, FeatureBatch, Weights, preprocess::IMAGE_SIDE};
use candle_core::Device;
use sources::Source;
use testdata::asked_bytes;

#[global_allocator]
static ALLOCATOR: testdata::Counted = testdata::Counted;

#[test]
fn a_warm_pass_asks_for_no_memory_of_size() {
    let Some(weights) = testdata::real_weights() else { return };
    let weights = Weights::read(&weights).unwrap();
    let images: Vec<Vec<f32>> = (0..8)
        .map(|image| (0..IMAGE_SIDE * IMAGE_SIDE).map(|at| ((at * (image + 3)) % 251) as f32 / 250.0).collect())
        .collect();
    let calibration = Backbone::calibrate(&weights, &images[..2]).unwrap();
    for backbone in [
        Backbone::new(&weights, Engine::Native, &Device::Cpu).unwrap(),
        Backbone::bf16(&weights).unwrap(),
        Backbone::quantised(&weights, &calibration).unwrap(),
    ] {
        let mut batch = FeatureBatch::default();
        // As many workspaces as threads work at a time; a later pass may be the first on which they all do.
        let mut asked: Vec<usize> = Vec::new();
        for _ in 0..6 {
            let before = asked_bytes();
            backbone.feature_maps_into(&images, &Source::FEATURE_MAPS, &mut batch).unwrap();
            asked.push(asked_bytes() - before);
        }
        let least = asked.iter().min().unwrap();
        println!("{backbone}: {asked:?} bytes");
        assert!(asked[0] > 1 << 20, "{backbone}: the first pass has to get its memory: {asked:?}");
        // Lists of groups and sinks; one feature map has 50,176 bytes at least.
        assert!(*least < 16 << 10, "{backbone}: {asked:?}");
    }
}
