//! The stored calibration of the 8-bit engine.
//!
//! It is measured before the first feature is extracted and then stays, whatever images come or go, because all features
//! of a cache must mean the same. Its hash is part of the cache's fingerprint: should it get lost and come out otherwise
//! the next time, then its features lie in another folder and are never mixed with those of the first.

use std::path::PathBuf;

use anyhow::{Result, bail};
use backbone::{Backbone, Calibration, NUMERICS_VERSION, Weights, preprocess};
use dataset::Split;
use rayon::prelude::*;
use stage::{ContentHash, Fingerprint, read_sound_json, write_sealed_json};
use study::Paths;

use crate::{Context, feature_pass, runs};

/// Images in the sample, evenly spread over the training split. More change nothing: relative error of FM4 on other real
/// images with 16 and 48 of them: 4.4% and 4.0%.
const SAMPLE_IMAGES: usize = 48;

/// The calibration of this data set and these weights, if it has been measured and is sound.
pub(crate) fn read(paths: &Paths, weights: &Weights) -> Result<Option<Calibration>> {
    Ok(read_sound_json(&path(paths, weights)?, runs::MADE_ANEW))
}

/// Identifies the numbers.
pub(crate) fn hash(calibration: &Calibration) -> Result<ContentHash> {
    Ok(ContentHash::of(&serde_json::to_vec(calibration)?))
}

/// Measures and stores it, unless it is there.
pub(crate) fn ensure(context: &Context, weights: &Weights) -> Result<()> {
    if read(&context.paths, weights)?.is_some() {
        return Ok(());
    }
    let images = &context.dataset.images;
    let train: Vec<usize> =
        context.selected.iter().copied().filter(|index| images[*index].split == Split::Train).collect();
    let count = SAMPLE_IMAGES.min(train.len());
    // Those that cannot be decoded are the pass's to report.
    let sample: Vec<Vec<f32>> = (0..count)
        .into_par_iter()
        .filter_map(|at| feature_pass::resized(&context.dataset, train[at * train.len() / count]).ok())
        .collect();
    if sample.is_empty() {
        bail!(
            "extract.precision = int8 is calibrated on training images, of which `{}` has none that can be read\n\n\
             hint: use extract.precision=f32",
            context.study.data.dir.display()
        );
    }
    let calibration = Backbone::calibrate(weights, &sample)?;
    tracing::info!("calibrated on {} training images", sample.len());
    write_sealed_json(&path(&context.paths, weights)?, &calibration)?;
    Ok(())
}

fn path(paths: &Paths, weights: &Weights) -> Result<PathBuf> {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("extract.weights", weights.content_hash());
    fingerprint.set("extract.image_side", preprocess::IMAGE_SIDE);
    fingerprint.set("extract.numerics", NUMERICS_VERSION);
    Ok(paths.calibration(&fingerprint.digest()))
}
