//! A ResNet-18 with seeded random convolutions, whose batch norms are calibrated on the drawn faces.
//!
//! Random convolutional features, each normalised over the data, are known to serve a learned classifier well (Jarrett
//! et al. 2009, "What is the best multi-stage architecture for object recognition?",
//! <https://doi.org/10.1109/ICCV.2009.5459469>): enough to show the chain at work without a download.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, Result};
use backbone::preprocess::{IMAGE_SIDE, normalise, resize};
use candle_core::{D, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stage::write_atomically;

use crate::{FACE_SIZE_PX, Written};

/// Raised when the same seed would give other weights.
const VERSION: u32 = 1;

/// Channels of the four stages (He et al. 2016, Table 1).
const STAGE_CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// Scale of each block's second norm. Small branches leave the shortcut in charge, so that what an image shows
/// survives eight random blocks (Goyal et al. 2017, section 5.1, start even at 0: <https://arxiv.org/abs/1706.02677>).
const BRANCH_SCALE: f32 = 0.5;

/// Writes the weights to `path` under torchvision's names, calibrated on `faces` (48×48 grey each). Does nothing if
/// weights of this seed and version are there.
///
/// # Errors
/// When a face has another size or the file cannot be written.
pub fn write_weights(path: &Path, seed: u64, faces: &[Vec<u8>]) -> Result<Written> {
    let origin = format!("fmstudy demo: version {VERSION}, seed {seed}, {} faces", faces.len());
    if path.is_file() && origin_of(path)? == Some(origin.clone()) {
        return Ok(Written::AlreadyThere);
    }
    let mut input = Vec::with_capacity(faces.len() * IMAGE_SIDE * IMAGE_SIDE * 3);
    for face in faces {
        input.extend(normalise(&resize(face, FACE_SIZE_PX, FACE_SIZE_PX, 1)?));
    }
    let input = Tensor::from_vec(input, (faces.len(), IMAGE_SIDE, IMAGE_SIDE, 3), &Device::Cpu)?;
    let input = input.permute((0, 3, 1, 2))?.contiguous()?; // (B, 3, 224, 224)

    let mut calibration = Calibration { random: ChaCha8Rng::seed_from_u64(seed), tensors: HashMap::new() };
    let stem = calibration.conv_norm(&input, ("conv1", "bn1"), (64, 7, 2), 1.0)?.relu()?; // (B, 64, 112, 112)
    // Zeros serve as padding, since nothing is negative after the ReLU.
    let padded = stem.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
    let mut hidden = padded.max_pool2d_with_stride(3, 2)?; // (B, 64, 56, 56)
    for (stage, channels) in STAGE_CHANNELS.into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            hidden = calibration.block(&hidden, &format!("layer{}.{block}", stage + 1), channels, stride)?;
        }
    }
    let metadata = HashMap::from([("origin".to_owned(), origin)]);
    write_atomically(path, &safetensors::serialize(&calibration.tensors, Some(metadata))?)?;
    Ok(Written::Fresh)
}

/// What made the file, if it says so.
fn origin_of(path: &Path) -> Result<Option<String>> {
    let bytes = fs_err::read(path)?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes)
        .with_context(|| format!("`{}` is no safetensors file; remove it", path.display()))?;
    Ok(metadata.metadata().as_ref().and_then(|metadata| metadata.get("origin").cloned()))
}

struct Calibration {
    random: ChaCha8Rng,
    tensors: HashMap<String, Tensor>,
}

impl Calibration {
    fn block(&mut self, input: &Tensor, name: &str, channels: usize, stride: usize) -> Result<Tensor> {
        let shortcut = if stride == 1 && input.dim(1)? == channels {
            input.clone()
        } else {
            let names = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            self.conv_norm(input, (&names.0, &names.1), (channels, 1, stride), 1.0)?
        };
        let names = [1, 2].map(|i| (format!("{name}.conv{i}"), format!("{name}.bn{i}")));
        let inner = self.conv_norm(input, (&names[0].0, &names[0].1), (channels, 3, stride), 1.0)?.relu()?;
        let branch = self.conv_norm(&inner, (&names[1].0, &names[1].1), (channels, 3, 1), BRANCH_SCALE)?;
        Ok((branch + shortcut)?.relu()?)
    }

    /// Draws a convolution (He et al. 2015, <https://arxiv.org/abs/1502.01852>, by fan-out as torchvision does) and
    /// measures the batch norm behind it; the result has zero mean and deviation `scale` in every channel.
    fn conv_norm(
        &mut self,
        input: &Tensor,
        (conv, norm): (&str, &str),
        (channels, kernel, stride): (usize, usize, usize),
        scale: f32,
    ) -> Result<Tensor> {
        let shape = (channels, input.dim(1)?, kernel, kernel);
        let count = channels * shape.1 * kernel * kernel;
        let std = (2.0 / (channels * kernel * kernel) as f32).sqrt();
        let values: Vec<f32> = (0..count).map(|_| normal(&mut self.random) * std).collect();
        let weight = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let output = input.conv2d(&weight, kernel / 2, stride, 1, 1)?; // (B, C, H, W)

        let flat = output.transpose(0, 1)?.flatten_from(1)?; // (C, B·H·W)
        let mean = flat.mean(D::Minus1)?; // (C)
        let centred = flat.broadcast_sub(&mean.unsqueeze(1)?)?;
        let variance = centred.sqr()?.mean(D::Minus1)?; // (C)
        let per_channel = |tensor: &Tensor| tensor.reshape((1, channels, 1, 1));
        let normalised =
            output.broadcast_sub(&per_channel(&mean)?)?.broadcast_div(&per_channel(&(&variance + 1e-5)?.sqrt()?)?)?;

        self.tensors.insert(format!("{conv}.weight"), weight);
        self.tensors.insert(format!("{norm}.weight"), (Tensor::ones_like(&mean)? * f64::from(scale))?);
        self.tensors.insert(format!("{norm}.bias"), Tensor::zeros_like(&mean)?);
        self.tensors.insert(format!("{norm}.running_mean"), mean);
        self.tensors.insert(format!("{norm}.running_var"), variance);
        Ok((normalised * f64::from(scale))?)
    }
}

/// A standard normal number (Box & Muller 1958).
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let mut uniform = || ((random.next_u32() >> 8) + 1) as f32 * (-24f32).exp2();
    (-2.0 * uniform().ln()).sqrt() * (2.0 * std::f32::consts::PI * uniform()).cos()
}

#[cfg(test)]
mod tests {
    use backbone::{Backbone, Engine, Weights};
    use sources::Source;

    use super::*;
    use crate::{Expression, draw};

    fn faces(count: usize, seed: u64) -> Vec<Vec<u8>> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|i| draw(Expression::ALL[i % 8], &mut random)).collect()
    }

    #[test]
    fn the_backbone_takes_them_and_its_maps_stay_in_scale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet18.safetensors");
        assert_eq!(write_weights(&path, 1, &faces(8, 0)).unwrap(), Written::Fresh);
        let first = fs_err::read(&path).unwrap();
        assert_eq!(write_weights(&path, 1, &faces(8, 0)).unwrap(), Written::AlreadyThere);
        fs_err::remove_file(&path).unwrap();
        write_weights(&path, 1, &faces(8, 0)).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), first, "the same seed gives the same bytes");

        let backbone = Backbone::new(&Weights::read(&path).unwrap(), Engine::Auto, &Device::Cpu).unwrap();
        let images: Vec<Vec<f32>> = faces(4, 9).iter().map(|face| resize(face, 48, 48, 1).unwrap()).collect();
        for (source, values) in backbone.feature_maps(&images, &Source::FEATURE_MAPS).unwrap().maps {
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            assert!((0.1..10.0).contains(&mean), "{source}: mean {mean}");
            let (one, other) = values.split_at(source.values_per_image());
            let apart = one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f32>() / one.len() as f32;
            assert!(apart > 0.05 * mean, "{source}: two faces differ by {apart} of {mean}");
        }
    }
}
