use kernels::ConvShape;
use sources::Source;

use crate::{FoldedConv, Weights, WeightsError};

/// Channels of the stem, that is of conv1 (He et al. 2016, Table 1).
pub(crate) const STEM_CHANNELS: usize = 64;

/// The part of ResNet-18 that yields feature maps: conv1, max-pool, four stages of two basic blocks
/// (He et al. 2016, Table 1; torchvision's `resnet18`). `C` is a convolution in whatever form an engine runs.
#[derive(Clone, Debug)]
pub struct Network<C> {
    /// conv1: 7×7, stride 2, then ReLU; a 3×3 max-pool of stride 2 follows.
    pub stem: C,
    /// layer1 … layer4.
    pub stages: Vec<[Block<C>; 2]>,
}

/// A basic block: two 3×3 convolutions and a shortcut.
#[derive(Clone, Debug)]
pub struct Block<C> {
    /// First convolution, with ReLU.
    pub conv1: C,
    /// Second convolution; the shortcut is added before its ReLU.
    pub conv2: C,
    /// 1×1 projection on the shortcut where the shape changes; none for the identity.
    pub downsample: Option<C>,
}

impl Network<FoldedConv> {
    /// Reads all convolutions and batch norms from `weights`.
    pub fn read(weights: &Weights) -> Result<Self, WeightsError> {
        let stem = ConvShape { in_channels: 3, out_channels: STEM_CHANNELS, kernel: 7, stride: 2, padding: 3 };
        let stem = FoldedConv::read(weights, "conv1", "bn1", stem, true)?;
        let mut in_channels = STEM_CHANNELS;
        let mut stages = Vec::new();
        for (index, map) in Source::FEATURE_MAPS.into_iter().enumerate() {
            let (layer, out_channels) = (format!("layer{}", index + 1), map.channels());
            let stride = if index == 0 { 1 } else { 2 };
            stages.push([
                Block::read(weights, &format!("{layer}.0"), in_channels, out_channels, stride)?,
                Block::read(weights, &format!("{layer}.1"), out_channels, out_channels, 1)?,
            ]);
            in_channels = out_channels;
        }
        Ok(Self { stem, stages })
    }
}

impl<C> Network<C> {
    /// The same network with every convolution converted.
    pub fn try_map<D, E>(&self, mut convert: impl FnMut(&C) -> Result<D, E>) -> Result<Network<D>, E> {
        let stem = convert(&self.stem)?;
        let mut stages = Vec::with_capacity(self.stages.len());
        for [first, second] in &self.stages {
            stages.push([first.try_map(&mut convert)?, second.try_map(&mut convert)?]);
        }
        Ok(Network { stem, stages })
    }
}

impl Block<FoldedConv> {
    fn read(
        weights: &Weights,
        name: &str,
        in_channels: usize,
        out_channels: usize,
        stride: usize,
    ) -> Result<Self, WeightsError> {
        let conv = |conv: &str, norm: &str, in_channels, kernel, stride, relu| {
            let shape = ConvShape { in_channels, out_channels, kernel, stride, padding: kernel / 2 };
            FoldedConv::read(weights, &format!("{name}.{conv}"), &format!("{name}.{norm}"), shape, relu)
        };
        let downsample = if stride == 1 && in_channels == out_channels {
            None
        } else {
            Some(conv("downsample.0", "downsample.1", in_channels, 1, stride, false)?)
        };
        Ok(Self {
            conv1: conv("conv1", "bn1", in_channels, 3, stride, true)?,
            conv2: conv("conv2", "bn2", out_channels, 3, 1, true)?,
            downsample,
        })
    }
}

impl<C> Block<C> {
    /// The same block with every convolution converted.
    pub fn try_map<D, E>(&self, mut convert: impl FnMut(&C) -> Result<D, E>) -> Result<Block<D>, E> {
        Ok(Block {
            conv1: convert(&self.conv1)?,
            conv2: convert(&self.conv2)?,
            downsample: self.downsample.as_ref().map(convert).transpose()?,
        })
    }
}
