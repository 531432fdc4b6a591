//! Feature maps of real images from real weights: every engine and instruction set against candle's
//! convolutions, and all against candle-transformers' ResNet-18.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up has failed")]

use std::{collections::HashMap, fmt};

use backbone::{
    Backbone, Engine, Weights,
    preprocess::{IMAGE_SIDE, normalise, resize},
};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::resnet::resnet18_no_final_layer;
use dataset::{Dataset, OpenOptions};
use kernels::Isa;
use sources::Source;
use stage::HashMemo;

/// Largest deviation, relative to the expected map: ‖got − expected‖₂ / ‖expected‖₂, and
/// max |got − expected| / max |expected|.
const TOLERANCE: f64 = 1e-4;

const IMAGES: usize = 64;

const BATCH: usize = 16;

/// Images for the portable instruction set, which is several times slower.
const PORTABLE_IMAGES: usize = 8;

/// The worst relative deviations of some maps.
#[derive(Clone, Copy, Default)]
struct Deviation {
    l2: f64,
    max: f64,
}

impl Deviation {
    fn include(&mut self, got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        // `f64::max` ignores NaN.
        assert!(got.iter().chain(expected).all(|value| value.is_finite()));
        let pairs = || got.iter().zip(expected).map(|(got, expected)| (f64::from(*got), f64::from(*expected)));
        let squares: f64 = pairs().map(|(got, expected)| (got - expected).powi(2)).sum();
        let norm: f64 = pairs().map(|(_, expected)| expected.powi(2)).sum();
        let error = pairs().map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
        let peak = pairs().map(|(_, expected)| expected.abs()).fold(0.0, f64::max);
        assert!(peak > 0.0, "the expected map is not all zero");
        self.l2 = self.l2.max((squares / norm).sqrt());
        self.max = self.max.max(error / peak);
    }

    fn is_tolerable(self) -> bool {
        self.l2 <= TOLERANCE && self.max <= TOLERANCE
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relative L2 {:.1e}, relative maximum {:.1e}", self.l2, self.max)
    }
}

/// `count` real faces spread over all splits, resized; and the weights. None, with a message, where they are
/// not there.
fn real_faces(count: usize) -> Option<(Vec<Vec<f32>>, Weights)> {
    let (dir, weights) = (testdata::real_ferplus()?, testdata::real_weights()?);
    let scratch = tempfile::tempdir().unwrap();
    let memo = HashMemo::open(&scratch.path().join("memo"));
    let dataset = Dataset::open(&dir, &OpenOptions::new(scratch.path()), &memo).unwrap();
    let faces = (0..count)
        .map(|index| {
            let pixels = dataset.decode(index * dataset.images.len() / count).unwrap();
            resize(&pixels.data, pixels.width, pixels.height, pixels.channels).unwrap()
        })
        .collect();
    Some((faces, Weights::read(&weights).unwrap()))
}

/// All four maps, computed in batches: candle's convolutions unfold their whole input.
fn feature_maps(backbone: &Backbone, images: &[Vec<f32>]) -> Vec<(Source, Vec<f32>)> {
    let mut maps = Source::FEATURE_MAPS.map(|source| (source, Vec::new())).to_vec();
    for batch in images.chunks(BATCH) {
        for (all, (source, values)) in
            maps.iter_mut().zip(backbone.feature_maps(batch, &Source::FEATURE_MAPS).unwrap().maps)
        {
            assert_eq!(all.0, source);
            all.1.extend(values);
        }
    }
    maps
}

fn assert_agree(what: &str, got: &[(Source, Vec<f32>)], expected: &[(Source, Vec<f32>)]) {
    assert_eq!(got.len(), expected.len());
    for ((source, got), (expected_source, expected)) in got.iter().zip(expected) {
        assert_eq!(source, expected_source);
        let mut deviation = Deviation::default();
        let per_image = source.values_per_image();
        for (got, expected) in got.chunks_exact(per_image).zip(expected.chunks_exact(per_image)) {
            deviation.include(got, expected);
        }
        println!("{what}, {source}, {} images: {deviation}", got.len() / per_image);
        assert!(deviation.is_tolerable(), "{what}, {source}: {deviation}");
    }
}

#[test]
fn native_agrees_with_candle_on_every_instruction_set() {
    let Some((faces, weights)) = real_faces(IMAGES) else { return };
    let candle = Backbone::new(&weights, Engine::Candle, &Device::Cpu).unwrap();
    let expected = feature_maps(&candle, &faces);
    for isa in Isa::available() {
        let count = if isa == Isa::Portable { PORTABLE_IMAGES } else { IMAGES };
        let native = Backbone::native(&weights, isa).unwrap();
        assert_eq!(native.to_string(), format!("native ({isa})"));
        let expected: Vec<_> = expected
            .iter()
            .map(|(source, values)| (*source, values[..count * source.values_per_image()].to_vec()))
            .collect();
        assert_agree(&native.to_string(), &feature_maps(&native, &faces[..count]), &expected);
    }
}

#[test]
fn colour_agrees_with_candle_also_beside_grey() {
    let Some((faces, weights)) = real_faces(5) else { return };
    // Three faces as the channels of one image.
    let colour = |first: usize| -> Vec<f32> {
        (0..IMAGE_SIDE * IMAGE_SIDE)
            .flat_map(|at| (first..first + 3).map(move |face| (face, at)))
            .map(|(face, at)| faces[face][at])
            .collect()
    };
    let images = [colour(0), faces[3].clone(), faces[4].clone(), colour(1), colour(2)];
    let candle = Backbone::new(&weights, Engine::Candle, &Device::Cpu).unwrap();
    let native = Backbone::new(&weights, Engine::Native, &Device::Cpu).unwrap();
    assert_agree("colour", &feature_maps(&native, &images), &feature_maps(&candle, &images));
}

#[test]
fn an_image_has_the_same_maps_to_the_bit_in_any_batch() {
    let Some((faces, weights)) = real_faces(7) else { return };
    let native = Backbone::new(&weights, Engine::Native, &Device::Cpu).unwrap();
    let together = feature_maps(&native, &faces);
    for count in [1, 2, 3] {
        let images: Vec<_> = faces.iter().rev().take(count).cloned().collect();
        for wanted in [&[Source::Fm2][..], &[Source::Fm4, Source::Fm1]] {
            let batch = native.feature_maps(&images, wanted).unwrap();
            let mut sources: Vec<Source> = wanted.to_vec();
            sources.sort();
            assert_eq!(batch.maps.iter().map(|(source, _)| *source).collect::<Vec<_>>(), sources);
            for (source, values) in &batch.maps {
                let all = &together.iter().find(|(other, _)| other == source).unwrap().1;
                let expected = all.rchunks_exact(source.values_per_image());
                assert!(values.chunks_exact(source.values_per_image()).zip(expected).all(|(a, b)| a == b), "{source}");
            }
        }
    }
    assert!(native.feature_maps(&[], &Source::FEATURE_MAPS).unwrap().maps.iter().all(|(_, values)| values.is_empty()));
}

/// candle-transformers' ResNet-18 returns the mean over all pixels of FM4 and nothing of the stages before.
/// With other weights after stage `n`, its result is the mean of FM`n`.
#[test]
fn means_of_the_maps_agree_with_candle_transformers() {
    let Some((faces, weights)) = real_faces(IMAGES) else { return };
    let native = Backbone::new(&weights, Engine::Auto, &Device::Cpu).unwrap();
    let maps = feature_maps(&native, &faces);
    let tensors = candle_core::safetensors::load(testdata::real_weights().unwrap(), &Device::Cpu).unwrap();
    for (source, values) in &maps {
        let stage = source.stage().unwrap();
        let mut tensors = tensors.clone();
        for later in stage + 1..=4 {
            halve(&mut tensors, later);
        }
        let network = resnet18_no_final_layer(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap();
        let mut deviation = Deviation::default();
        for (face, map) in faces.iter().zip(values.chunks_exact(source.values_per_image())) {
            let input = Tensor::from_vec(normalise(face), (1, IMAGE_SIDE, IMAGE_SIDE, 3), &Device::Cpu).unwrap();
            let input = input.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let pooled: Vec<f32> = network.forward(&input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let (means, rest) = pooled.split_at(source.channels());
            assert!(rest.iter().all(|value| *value == 0.0));
            deviation.include(&channel_means(map, source.channels()), means);
        }
        println!("candle-transformers, mean of {source}, {IMAGES} images: {deviation}");
        assert!(deviation.is_tolerable(), "mean of {source}: {deviation}");
    }
}

/// Mean over the pixels of `map`, (pixels, channels).
fn channel_means(map: &[f32], channels: usize) -> Vec<f32> {
    let pixels = map.len() / channels;
    let mut sums = vec![0.0; channels];
    for pixel in map.chunks_exact(channels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += f64::from(*value);
        }
    }
    sums.into_iter().map(|sum| (sum / pixels as f64) as f32).collect()
}

/// Replaces stage `stage` by one that halves the sides: each output pixel is the mean of a square of 2×2, in the
/// channel of the same number; channels beyond the input's are zero. No input is negative, so no ReLU changes it.
fn halve(tensors: &mut HashMap<String, Tensor>, stage: usize) {
    let channels = Source::FEATURE_MAPS[stage - 1].channels();
    // (out, in, side, side): `values` from each channel to that of the same number, zero elsewhere.
    let diagonal = |in_channels: usize, values: &[f32]| {
        let mut weights = vec![0.0; channels * in_channels * values.len()];
        for channel in 0..in_channels {
            let at = (channel * in_channels + channel) * values.len();
            weights[at..at + values.len()].copy_from_slice(values);
        }
        let side = values.len().isqrt();
        Tensor::from_vec(weights, (channels, in_channels, side, side), &Device::Cpu).unwrap()
    };
    let mut set = |name: &str, tensor: Tensor| {
        let old = tensors.insert(format!("layer{stage}.{name}"), tensor).unwrap();
        assert_eq!(old.dims(), tensors[&format!("layer{stage}.{name}")].dims(), "{name}");
    };
    // Of the 3×3 taps around pixel (2y, 2x), the four at (2y, 2x) … (2y + 1, 2x + 1).
    let square = [0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.0, 0.25, 0.25];
    let centre = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    set("0.conv1.weight", diagonal(channels / 2, &square));
    set("0.conv2.weight", diagonal(channels, &centre));
    set("0.downsample.0.weight", diagonal(channels / 2, &[0.0]));
    set("1.conv1.weight", diagonal(channels, &centre));
    set("1.conv2.weight", diagonal(channels, &[0.0; 9]));
    // Batch norms that change nothing: with 1e-5 added, the variance is one.
    for norm in ["0.bn1", "0.bn2", "0.downsample.1", "1.bn1", "1.bn2"] {
        for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0 - 1e-5f32)] {
            set(&format!("{norm}.{part}"), Tensor::full(value, channels, &Device::Cpu).unwrap());
        }
    }
}
