use std::path::Path;

use anyhow::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{Expression, SplitCounts, Written, draw, write_faces, write_weights};

/// Seed of the demo's faces and weights.
const SEED: u64 = 2023;

/// Images of the demo: enough to learn from, few enough for two minutes on two cores.
const COUNTS: SplitCounts = SplitCounts { train: 1200, valid: 160, test: 400 };

/// Faces on which the batch norms are calibrated.
const CALIBRATION_FACES: usize = 32;

/// Makes the demo's data set, `dir/faces`, and its backbone, `dir/resnet18.safetensors`, where they are not there yet.
///
/// # Errors
/// When a file cannot be written, or something else lies in their place.
pub fn write_demo(dir: &Path) -> Result<[Written; 2]> {
    let faces = write_faces(&dir.join("faces"), SEED, COUNTS)?;
    // Other faces than those of the set: the backbone has seen none of its images.
    let mut random = ChaCha8Rng::seed_from_u64(SEED + 1);
    let calibration: Vec<Vec<u8>> =
        (0..CALIBRATION_FACES).map(|i| draw(Expression::ALL[i % Expression::ALL.len()], &mut random)).collect();
    let weights = write_weights(&dir.join("resnet18.safetensors"), SEED, &calibration)?;
    Ok([faces, weights])
}
