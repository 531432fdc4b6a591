use candle_core::{Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module};
use sources::Source;

use crate::{
    Block, FeatureSink, FoldedConv, Network,
    preprocess::{IMAGE_SIDE, normalise},
};

/// The network on candle's convolutions: (N images, C channels, H, W) on any device.
#[derive(Debug)]
pub(crate) struct CandleEngine {
    network: Network<Conv2d>,
    device: Device,
}

impl CandleEngine {
    pub(crate) fn new(network: &Network<FoldedConv>, device: &Device) -> Result<Self> {
        let convert = |conv: &FoldedConv| -> Result<Conv2d> {
            let shape = conv.shape;
            let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
            let weight = Tensor::from_slice(&conv.weights, dims, device)?;
            let bias = Tensor::from_slice(&conv.bias, shape.out_channels, device)?;
            let config = Conv2dConfig { padding: shape.padding, stride: shape.stride, ..Default::default() };
            Ok(Conv2d::new(weight, Some(bias), config))
        };
        Ok(Self { network: network.try_map(convert)?, device: device.clone() })
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `sinks`, one per map and image.
    pub(crate) fn run<S: FeatureSink>(&self, images: &[Vec<f32>], sinks: &mut [(Source, Vec<S>)]) -> Result<()> {
        let input: Vec<f32> = images.iter().flat_map(|image| normalise(image)).collect();
        let input = Tensor::from_vec(input, (images.len(), IMAGE_SIDE, IMAGE_SIDE, 3), &self.device)?;
        let input = input.permute((0, 3, 1, 2))?.contiguous()?; // (N, 3, 224, 224)
        let stem = self.network.stem.forward(&input)?.relu()?; // (N, 64, 112, 112)
        // Zeros serve as padding, since nothing is negative after the ReLU.
        let padded = stem.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut hidden = padded.max_pool2d_with_stride(3, 2)?; // (N, 64, 56, 56)
        let depth = sinks.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0);
        for (index, blocks) in self.network.stages[..depth].iter().enumerate() {
            for block in blocks {
                hidden = forward(block, &hidden)?;
            }
            for (source, sinks) in sinks.iter_mut().filter(|(source, _)| source.stage() == Some(index + 1)) {
                let values: Vec<f32> = hidden.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1()?;
                for (sink, map) in sinks.iter_mut().zip(values.chunks_exact(source.values_per_image())) {
                    sink.take(map.chunks_exact(source.side() * source.channels()));
                }
            }
        }
        Ok(())
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
