//! The pass with numbers that are multiplied as they are stored, in bfloat16 or in 32-bit floats. In bfloat16 cuDNN's convolutions add
//! shortcut and bias and cut off below zero before they round their sums; where cuDNN has no such kernel, one of our own reads each activation
//! once and writes it once. The stem is a kernel of our own then, as well.

use candle_core::{DType, Device, Layout, Result, Tensor};

use super::{
    Kernels, convolve::Convolve, exact_biases::with_exact_biases, finish::Finish, fused::Fused, stem::Stem,
    through_stages,
};
#[cfg(feature = "cudnn")]
use super::{convolutions, cudnn, on_gpu};
#[cfg(feature = "cudnn")]
use crate::backbone::{GPU_BATCH, KernelTimes};
use crate::{
    FoldedConv, Network,
    backbone::Arithmetic,
    preprocess::{IMAGENET_MEAN, IMAGENET_STD},
};

/// The network with filters (out, kernel, kernel, in).
#[derive(Debug)]
pub(super) struct Direct {
    network: Network<Conv>,
    /// In bfloat16; none in 32-bit floats.
    halves: Option<Halves>,
}

/// What the pass in bfloat16 has of its own.
#[derive(Debug)]
struct Halves {
    /// For grey and for colour images.
    stems: [Stem; 2],
    kernels: Kernels,
    fused: bool,
}

#[derive(Debug)]
struct Conv {
    /// With the bias in the precision of the filters.
    fused: Fused,
    /// (out), in floats.
    bias: Tensor,
}

impl Direct {
    /// Without fused convolutions, unless there are such for all of them in a batch of usual size.
    pub(super) fn new(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self> {
        let direct = Self::just_as_asked(network, device, arithmetic)?;
        #[cfg(feature = "cudnn")]
        if arithmetic == (Arithmetic::Halves { fused: true }) && !direct.fuses_all(device)? {
            return Self::just_as_asked(network, device, Arithmetic::Halves { fused: false });
        }
        Ok(direct)
    }

    fn just_as_asked(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self> {
        let dtype = if matches!(arithmetic, Arithmetic::Floats { .. }) { DType::F32 } else { DType::BF16 };
        let convert = |conv: &FoldedConv| -> Result<Conv> {
            let shape = conv.shape;
            let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
            let filters = Tensor::from_slice(&conv.weights, dims, &Device::Cpu)?.permute((0, 2, 3, 1))?.contiguous()?;
            let bias = Tensor::from_slice(&conv.bias, shape.out_channels, &Device::Cpu)?;
            Ok(Conv {
                fused: Fused {
                    convolve: Convolve { stride: shape.stride, padding: shape.padding },
                    filters: filters.to_dtype(dtype)?.to_device(device)?,
                    bias: bias.to_dtype(dtype)?.to_device(device)?,
                    relu: conv.relu,
                },
                bias: bias.to_device(device)?,
            })
        };
        let own = |fused: bool| -> Result<Halves> {
            let kernels = Kernels::on(device)?;
            let stem = |colours: usize| Stem::new(&network.stem, colours, device, kernels.clone());
            Ok(Halves { stems: [stem(1)?, stem(3)?], kernels, fused })
        };
        let halves = match arithmetic {
            Arithmetic::Floats { .. } => None,
            Arithmetic::Halves { fused } => Some(own(fused)?),
        };
        let network = match arithmetic {
            Arithmetic::Halves { fused: true } => with_exact_biases(network).try_map(convert)?,
            _ => network.try_map(convert)?,
        };
        Ok(Self { network, halves })
    }

    /// Whether there are fused convolutions for all of them in a batch of usual size.
    #[cfg(feature = "cudnn")]
    fn fuses_all(&self, device: &Device) -> Result<bool> {
        for (Conv { fused, .. }, side, shortcut) in
            convolutions(&self.network.stages, |conv| conv.fused.convolve.stride)
        {
            let layout = Layout::contiguous((GPU_BATCH, side, side, fused.filters.dim(3)?));
            if !self.fuses(fused, &layout, shortcut, device)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How it computes.
    #[cfg(feature = "cudnn")]
    pub(super) fn arithmetic(&self) -> Arithmetic {
        match &self.halves {
            Some(halves) => Arithmetic::Halves { fused: halves.fused },
            None => Arithmetic::Floats { pairs: false },
        }
    }

    /// Takes `images` through `depth` stages, and gives the map of each (N, H, W, C) to `take`, with the stage's number from 1 on.
    pub(super) fn pass(
        &self,
        images: &Tensor,
        depth: usize,
        take: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let conv = |conv: &Conv, input: &Tensor, shortcut: Option<&Tensor>| self.conv(conv, input, shortcut);
        through_stages(&self.network.stages[..depth], self.stem(images)?, conv, take)
    }

    /// How long the stem's kernel takes, and those that cuDNN has for each other convolution of a pass over `images`, as a mean of `times`. This
    /// thread's passes over as many images run the fastest from then on. Nothing where no such kernels are used.
    #[cfg(feature = "cudnn")]
    pub(super) fn take_fastest_kernels(&self, images: &Tensor, times: usize) -> Result<Vec<KernelTimes>> {
        if !self.halves.as_ref().is_some_and(|halves| halves.fused) {
            return Ok(Vec::new());
        }
        let device = images.device().as_cuda_device()?;
        let seconds = on_gpu::mean_seconds(device, times, || self.stem(images).map(drop))?;
        let mut all = vec![KernelTimes { convolution: "stem".to_owned(), seconds: vec![Some(seconds)] }];
        let mut time = |convolution: String, fused: &Fused, input: &Tensor, shortcut: Option<&Tensor>| {
            let seconds = cudnn::take_fastest_kernel(fused, input, shortcut, times)?;
            all.push(KernelTimes { convolution, seconds });
            Ok::<_, candle_core::Error>(())
        };
        let mut hidden = self.stem(images)?;
        for (stage, blocks) in self.network.stages.iter().enumerate() {
            for (number, block) in blocks.iter().enumerate() {
                let name = |conv: &str| format!("layer{}.{number}.{conv}", stage + 1);
                let mut shortcut = hidden.clone();
                if let Some(downsample) = &block.downsample {
                    time(name("downsample"), &downsample.fused, &hidden, None)?;
                    shortcut = self.conv(downsample, &hidden, None)?;
                }
                time(name("conv1"), &block.conv1.fused, &hidden, None)?;
                let inner = self.conv(&block.conv1, &hidden, None)?;
                time(name("conv2"), &block.conv2.fused, &inner, Some(&shortcut))?;
                hidden = self.conv(&block.conv2, &inner, Some(&shortcut))?;
            }
        }
        Ok(all)
    }

    fn stem(&self, images: &Tensor) -> Result<Tensor> {
        let Conv { fused: Fused { convolve, filters, .. }, bias } = &self.network.stem;
        let Some(Halves { stems: [grey, colour], .. }) = &self.halves else {
            let sums = normalised(images)?.apply_op2_no_bwd(filters, convolve)?; // (N, 112, 112, 64)
            // Zeros serve as padding, since nothing is negative after the ReLU.
            let stem = sums.broadcast_add(bias)?.relu()?.permute((0, 3, 1, 2))?;
            let padded = stem.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.contiguous()?;
            return padded.max_pool2d_with_stride(3, 2)?.permute((0, 2, 3, 1))?.contiguous();
        };
        images.apply_op1_no_bwd(if images.dim(3)? == 1 { grey } else { colour })
    }

    fn conv(&self, Conv { fused, bias }: &Conv, input: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        if self.fuses(fused, input.layout(), shortcut.is_some(), input.device())? {
            return match shortcut {
                Some(shortcut) => input.apply_op2_no_bwd(shortcut, fused),
                None => input.apply_op1_no_bwd(fused),
            };
        }
        let sums = input.apply_op2_no_bwd(&fused.filters, &fused.convolve)?;
        let Some(Halves { kernels, .. }) = &self.halves else {
            let sums = sums.broadcast_add(bias)?;
            let sums = shortcut.map_or(Ok(sums.clone()), |shortcut| sums + shortcut)?;
            return if fused.relu { sums.relu() } else { Ok(sums) };
        };
        let finish = Finish { relu: fused.relu, kernels: kernels.clone() };
        match shortcut {
            Some(shortcut) => sums.apply_op3_no_bwd(bias, shortcut, &finish),
            None => sums.apply_op2_no_bwd(bias, &finish),
        }
    }

    /// Whether there is a kernel that does all of `fused`, and it is wanted.
    #[cfg_attr(not(feature = "cudnn"), expect(unused_variables, reason = "the CPU's twin does them all"))]
    #[cfg_attr(not(feature = "cudnn"), expect(clippy::unnecessary_wraps, reason = "cuDNN can fail"))]
    fn fuses(&self, fused: &Fused, input: &Layout, shortcut: bool, device: &Device) -> Result<bool> {
        if !self.halves.as_ref().is_some_and(|halves| halves.fused) {
            return Ok(false);
        }
        #[cfg(feature = "cudnn")]
        if let Device::Cuda(device) = device {
            return cudnn::has_kernel(fused, input, shortcut, device);
        }
        Ok(true)
    }
}

/// What [`normalise`](crate::preprocess::normalise) makes of images (N, 224, 224, 1 or 3): (N, 224, 224, 3).
fn normalised(images: &Tensor) -> Result<Tensor> {
    let constant = |of: [f32; 3]| Tensor::from_slice(&of, 3, images.device());
    images.broadcast_sub(&constant(IMAGENET_MEAN)?)?.broadcast_div(&constant(IMAGENET_STD)?)
}
