//! The engines in bfloat16 and in 8-bit integers against the one in floats, on real images with real weights.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use backbone::{Backbone, BackboneError, Engine, FeatureBatch, Weights, preprocess::resize};
use candle_core::Device;
use dataset::{Dataset, OpenOptions};
use sources::Source;
use stage::HashMemo;

const CALIBRATION_IMAGES: usize = 48;

/// Some that are not in the sample.
const IMAGES: usize = 15;

/// Faces spread over the data set, resized, and the weights. None, with a message, where they are not there.
fn real_faces(count: usize, from: usize) -> Option<(Vec<Vec<f32>>, Weights)> {
    let (dir, weights) = (testdata::real_ferplus()?, testdata::real_weights()?);
    let scratch = tempfile::tempdir().unwrap();
    let memo = HashMemo::open(&scratch.path().join("memo"));
    let dataset = Dataset::open(&dir, &OpenOptions::new(scratch.path()), &memo).unwrap();
    let face = |index: usize| {
        let pixels = dataset.decode(from + index * (dataset.images.len() - from) / count).unwrap();
        resize(&pixels.data, pixels.width, pixels.height, pixels.channels).unwrap()
    };
    Some(((0..count).map(face).collect(), Weights::read(&weights).unwrap()))
}

/// Compares every feature map with the one in floats: ‖got − expected‖₂ / ‖expected‖₂. Gives what `backbone` computes.
fn assert_within(tolerance: f64, backbone: &Backbone, weights: &Weights, faces: &[Vec<f32>]) -> FeatureBatch {
    let floats = Backbone::new(weights, Engine::Native, &Device::Cpu).unwrap();
    let got = backbone.feature_maps(faces, &Source::FEATURE_MAPS).unwrap();
    let expected = floats.feature_maps(faces, &Source::FEATURE_MAPS).unwrap();
    for ((source, got), (_, expected)) in got.maps.iter().zip(&expected.maps) {
        let squares: f64 = got.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let norm: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
        let error = (squares / norm).sqrt();
        println!("{backbone}, {source}: relative error {error:.2e}");
        assert!(error <= tolerance, "{backbone}, {source}: relative error {error}");
    }
    got
}

#[test]
fn feature_maps_in_bfloat16_are_within_two_percent() {
    let Some((faces, weights)) = real_faces(IMAGES, 100) else { return };
    let bf16 = Backbone::bf16(&weights).unwrap();
    let got = assert_within(0.02, &bf16, &weights, &faces);
    let alone = bf16.feature_maps(&faces[3..4], &[Source::Fm2]).unwrap();
    let values = Source::Fm2.values_per_image();
    assert!(alone.maps[0].1 == got.maps[1].1[3 * values..4 * values], "an image's features do not depend on its batch");
}

#[test]
fn feature_maps_in_8_bit_integers_are_within_six_percent() {
    let Some((sample, weights)) = real_faces(CALIBRATION_IMAGES, 0) else { return };
    let Some((faces, _)) = real_faces(IMAGES, 100) else { return };
    let calibration = Backbone::calibrate(&weights, &sample).unwrap();
    assert_eq!(calibration.images, CALIBRATION_IMAGES);
    let quantised = Backbone::quantised(&weights, &calibration).unwrap();
    let got = assert_within(0.06, &quantised, &weights, &faces);

    // One image alone, and only as deep as asked.
    let alone = quantised.feature_maps(&faces[3..4], &[Source::Fm2]).unwrap();
    let values = Source::Fm2.values_per_image();
    assert!(alone.maps[0].1 == got.maps[1].1[3 * values..4 * values], "an image's features do not depend on its batch");
}

#[test]
fn a_calibration_of_another_network_is_refused() {
    let Some((sample, weights)) = real_faces(1, 0) else { return };
    let mut calibration = Backbone::calibrate(&weights, &sample).unwrap();
    calibration.stages[1][0].first.max.pop();
    let refused = Backbone::quantised(&weights, &calibration);
    assert!(matches!(refused, Err(BackboneError::Calibration)));
    let text = serde_json::to_string(&calibration).unwrap();
    assert_eq!(serde_json::from_str::<backbone::Calibration>(&text).unwrap(), calibration, "stored without loss");
}
