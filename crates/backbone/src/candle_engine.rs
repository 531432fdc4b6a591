use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module};
use rayon::prelude::*;
use sources::Source;

use crate::{
    Block, FeatureSink, FoldedConv, Network,
    backbone::{CPU_BATCH, GPU_BATCH},
    crossing::{Crossing, Departures},
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD, normalise},
};

/// The network on candle's convolutions: (N images, C channels, H, W) on any device.
#[derive(Debug)]
pub(crate) struct CandleEngine {
    network: Network<Conv2d>,
    device: Device,
    crossing: Crossing,
    /// What is multiplied; cuDNN adds in 32-bit floats (of its half precisions it does so for bfloat16 only).
    dtype: DType,
    /// Whether maps are rounded on the device, if that is what becomes of them, so that half as much is copied.
    rounds: bool,
}

impl CandleEngine {
    pub(crate) fn new(network: &Network<FoldedConv>, device: &Device, dtype: DType) -> Result<Self> {
        let convert = |conv: &FoldedConv| -> Result<Conv2d> {
            let shape = conv.shape;
            let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
            let weight = Tensor::from_slice(&conv.weights, dims, device)?.to_dtype(dtype)?;
            let bias = Tensor::from_slice(&conv.bias, shape.out_channels, device)?.to_dtype(dtype)?;
            let config = Conv2dConfig { padding: shape.padding, stride: shape.stride, ..Default::default() };
            Ok(Conv2d::new(weight, Some(bias), config))
        };
        let (crossing, rounds) = (Crossing::default(), !device.is_cpu());
        Ok(Self { network: network.try_map(convert)?, device: device.clone(), crossing, dtype, rounds })
    }

    /// Passes that go well side by side: while a GPU computes one, the processor brings and fetches what belongs to another.
    pub(crate) fn passes_at_once(&self) -> usize {
        if self.device.is_cpu() { 1 } else { 2 }
    }

    /// Images that go well through one pass.
    pub(crate) fn batch(&self) -> usize {
        if self.device.is_cpu() { CPU_BATCH } else { GPU_BATCH }
    }

    /// What is multiplied.
    pub(crate) const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `sinks`, one per map and image.
    pub(crate) fn run<S: FeatureSink>(&self, images: &[Vec<f32>], sinks: &mut [(Source, Vec<S>)]) -> Result<()> {
        let input = self.input(images)?.to_dtype(self.dtype)?; // (N, 3, 224, 224)
        let stem = self.network.stem.forward(&input)?.relu()?; // (N, 64, 112, 112)
        // Zeros serve as padding, since nothing is negative after the ReLU.
        let padded = stem.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut hidden = padded.max_pool2d_with_stride(3, 2)?; // (N, 64, 56, 56)
        let depth = sinks.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0);
        let mut departures = Departures::default();
        for (index, blocks) in self.network.stages[..depth].iter().enumerate() {
            for block in blocks {
                hidden = forward(block, &hidden)?;
            }
            departures.leave(&self.crossing, index + 1, &hidden.permute((0, 2, 3, 1))?, sinks, self.rounds)?;
        }
        departures.arrive(&self.crossing, sinks)
    }

    /// The network's input, normalised as [`normalise`] does.
    fn input(&self, images: &[Vec<f32>]) -> Result<Tensor> {
        const PIXELS: usize = IMAGE_SIDE * IMAGE_SIDE;
        let (count, side, device) = (images.len(), IMAGE_SIDE, &self.device);
        if images.iter().any(|image| image.len() != PIXELS) {
            let images: Vec<Vec<f32>> = images.par_iter().map(|image| normalise(image)).collect();
            let input = self.crossing.to_device(&images, device)?.reshape((count, side, side, 3))?;
            return input.permute((0, 3, 1, 2))?.contiguous();
        }
        // Grey images, as FERPlus has them, become three channels on the device: a third is copied.
        let grey = self.crossing.to_device(images, device)?.reshape((count, 1, side, side))?;
        let channel = |c: usize| (&grey - f64::from(IMAGENET_MEAN[c]))? / f64::from(IMAGENET_STD[c]);
        Tensor::cat(&[channel(0)?, channel(1)?, channel(2)?], 1)
    }
}

fn forward(block: &Block<Conv2d>, input: &Tensor) -> Result<Tensor> {
    let shortcut = match &block.downsample {
        Some(downsample) => downsample.forward(input)?,
        None => input.clone(),
    };
    let inner = block.conv1.forward(input)?.relu()?;
    (block.conv2.forward(&inner)? + shortcut)?.relu()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::{FeatureBatch, Weights};

    /// A sink that is content with halves.
    struct Halves(Vec<f16>);

    impl FeatureSink for Halves {
        fn take<'a>(&mut self, _: impl Iterator<Item = &'a [f32]>) {
            panic!("the map was to be rounded before it was copied");
        }

        fn keeps_halves(&self) -> bool {
            true
        }

        fn take_halves<'a>(&mut self, rows: impl Iterator<Item = &'a [f16]>) {
            self.0 = rows.flatten().copied().collect();
        }
    }

    fn image(channels: usize) -> Vec<f32> {
        let grey = (0..IMAGE_SIDE * IMAGE_SIDE).map(|at| ((at as f32 * 0.01).sin() + 1.0) / 2.0);
        grey.flat_map(|value| std::iter::repeat_n(value, channels)).collect()
    }

    #[test]
    fn grey_is_three_equal_channels_and_what_is_rounded_there_is_rounded_alike() {
        let Some(weights) = testdata::real_weights() else { return };
        let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
        let mut engine = CandleEngine::new(&network, &Device::Cpu, DType::F32).unwrap();
        let maps = |engine: &CandleEngine, images: &[Vec<f32>]| {
            let mut batch = FeatureBatch::default();
            engine.run(images, &mut batch.sinks(images.len(), &[Source::Fm2])).unwrap();
            batch.maps.swap_remove(0).1
        };
        let grey = maps(&engine, &[image(1)]);
        let (colour, mixed) = (maps(&engine, &[image(3)]), maps(&engine, &[image(3), image(1)]));
        let close = |one: &[f32], other: &[f32]| one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(&grey, &colour) && close(&grey, &mixed[grey.len()..]));
        engine.rounds = true;
        let mut sinks = [(Source::Fm2, vec![Halves(Vec::new())])];
        engine.run(&[image(1)], &mut sinks).unwrap();
        assert_eq!(sinks[0].1[0].0, grey.iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>());
        assert_eq!(maps(&engine, &[image(1)]), grey, "those who want floats get them");
    }
}
