//! What the 8-bit integers of the quantised engine stand for: measured on a sample of images, once per cache.

use kernels::{Activations, QuantisedInput};
use serde::{Deserialize, Serialize};

use crate::{FoldedConv, Network, native_engine::ConvInput};

/// How much of the difference between channels their activations take, the rest goes into the weights: 0 gives every
/// channel weights of one size, 1 activations of one size. Measured on 16 real images, relative error of FM4 with 0.5,
/// 0.6, 0.7, 0.8, 1: 6.5, 6.3, 6.1, 6.9, 8.6%; with corrected biases 4.4% (0.5) and 4.5% (0.7). The idea is SmoothQuant's
/// (Xiao et al. 2023, section 4, <https://arxiv.org/abs/2211.10438>).
const ACTIVATION_SHARE: f32 = 0.65;

/// A channel that was hardly active in the sample is given this share of the largest one's range: it may be more active
/// elsewhere.
const SMALLEST_RANGE: f32 = 0.01;

/// The largest quantised activation.
const LARGEST_ACTIVATION: f32 = 255.0;

/// The activations that every convolution behind the stem reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Images in the sample.
    pub images: usize,
    /// Per stage and block.
    pub stages: Vec<[BlockRanges; 2]>,
}

/// What a block's two 3×3 convolutions read; the projection of the shortcut reads what the first one does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockRanges {
    /// Input of the first convolution.
    pub first: ChannelRanges,
    /// Input of the second convolution.
    pub second: ChannelRanges,
}

/// Activations of a tensor without negative values, per channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelRanges {
    /// The largest one.
    pub max: Vec<f32>,
    /// The mean.
    pub mean: Vec<f32>,
}

/// Maxima and sums on the way to [`ChannelRanges`].
#[derive(Clone, Debug, Default)]
struct Sums {
    max: Vec<f32>,
    sum: Vec<f64>,
    pixels: usize,
}

/// Collects a [`Calibration`] from what a pass reads.
#[derive(Debug)]
pub(crate) struct Calibrator {
    /// Per stage, block and convolution.
    stages: Vec<[[Sums; 2]; 2]>,
}

impl Calibrator {
    pub(crate) fn new(stages: usize) -> Self {
        Self { stages: vec![Default::default(); stages] }
    }

    pub(crate) fn see(&mut self, stage: usize, block: usize, input: ConvInput, activations: &Activations) {
        self.stages[stage][block][input as usize].add(activations);
    }

    pub(crate) fn finish(self, images: usize) -> Calibration {
        let block = |[first, second]: [Sums; 2]| BlockRanges { first: first.finish(), second: second.finish() };
        Calibration { images, stages: self.stages.into_iter().map(|blocks| blocks.map(block)).collect() }
    }
}

impl Sums {
    fn add(&mut self, activations: &Activations) {
        let channels = activations.channels();
        self.max.resize(channels, 0.0);
        self.sum.resize(channels, 0.0);
        for image in 0..activations.images() {
            for y in 0..activations.side() {
                for pixel in activations.row(image, y).chunks_exact(channels) {
                    for ((value, max), sum) in pixel.iter().zip(&mut self.max).zip(&mut self.sum) {
                        *max = max.max(*value);
                        *sum += f64::from(*value);
                    }
                }
            }
        }
        self.pixels += activations.images() * activations.side() * activations.side();
    }

    fn finish(self) -> ChannelRanges {
        let mean = self.sum.iter().map(|sum| (sum / self.pixels.max(1) as f64) as f32).collect();
        ChannelRanges { max: self.max, mean }
    }
}

impl Calibration {
    /// Whether it describes the activations of `network`.
    pub(crate) fn fits(&self, network: &Network<FoldedConv>) -> bool {
        let fits = |ranges: &ChannelRanges, conv: &FoldedConv| {
            [&ranges.max, &ranges.mean].iter().all(|values| {
                values.len() == conv.shape.in_channels && values.iter().all(|value| value.is_finite() && *value >= 0.0)
            })
        };
        self.stages.len() == network.stages.len()
            && self
                .stages
                .iter()
                .flatten()
                .zip(network.stages.iter().flatten())
                .all(|(ranges, block)| fits(&ranges.first, &block.conv1) && fits(&ranges.second, &block.conv2))
    }
}

impl ChannelRanges {
    /// Steps of the integers for the convolutions that read this tensor.
    pub(crate) fn quantise_for(&self, readers: &[&FoldedConv]) -> QuantisedInput {
        let largest = self.max.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let weight = |channel: usize| {
            let of = |conv: &&FoldedConv| {
                let taps = conv.shape.kernel * conv.shape.kernel;
                let filters = conv.weights.chunks_exact(conv.shape.in_channels * taps);
                filters.flat_map(|filter| &filter[channel * taps..][..taps]).fold(0.0, |a: f32, w| a.max(w.abs()))
            };
            readers.iter().map(of).fold(f32::MIN_POSITIVE, f32::max)
        };
        let ranges: Vec<f32> = self.max.iter().map(|max| max.max(SMALLEST_RANGE * largest)).collect();
        let shares: Vec<f32> = (ranges.iter().enumerate())
            .map(|(c, range)| range.powf(ACTIVATION_SHARE) / weight(c).powf(1.0 - ACTIVATION_SHARE))
            .collect();
        let widest = ranges.iter().zip(&shares).map(|(range, share)| range / share).fold(0.0, f32::max);
        QuantisedInput {
            steps: shares.iter().map(|share| share * widest / LARGEST_ACTIVATION).collect(),
            means: self.mean.clone(),
        }
    }
}
