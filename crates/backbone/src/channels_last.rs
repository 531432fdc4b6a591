//! The network with channels last, in bfloat16 or in 32-bit floats that are multiplied as such: on a GPU cuDNN's convolutions, which take
//! this layout to tensor cores as it is and in bfloat16 add shortcut and bias and cut off below zero before they round their sums. Where
//! cuDNN has no such kernel, one of our own reads each activation once and writes it once. In bfloat16 the stem is a kernel of our own as
//! well. On the CPU twins of all, which the tests compare.

mod convolve;
#[cfg(feature = "cudnn")]
mod cudnn;
mod exact_biases;
mod finish;
mod fused;
#[cfg(feature = "cudnn")]
mod on_gpu;
mod stem;

use candle_core::{DType, Device, Layout, Result, Tensor};
use convolve::Convolve;
use exact_biases::with_exact_biases;
use finish::Finish;
use fused::Fused;
use sources::Source;
use stem::Stem;

#[cfg(feature = "cudnn")]
use crate::backbone::{GPU_BATCH, KernelTimes};
use crate::{
    Block, FeatureSink, FoldedConv, Network,
    backbone::Arithmetic,
    crossing::{Crossing, Departures},
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD},
};

/// Kernels between the convolutions, on one GPU.
#[derive(Clone, Debug, Default)]
struct Kernels {
    #[cfg(feature = "cudnn")]
    card: Option<std::sync::Arc<gpu::Card>>,
}

/// The network with filters (out, kernel, kernel, in).
#[derive(Debug)]
pub(crate) struct ChannelsLast {
    network: Network<Conv>,
    crossing: Crossing,
    device: Device,
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

impl ChannelsLast {
    /// Without fused convolutions, unless there are such for all of them in a batch of usual size.
    pub(crate) fn new(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self> {
        // Each pass gives back what it took, and the next takes as much.
        #[cfg(feature = "cudnn")]
        if let Device::Cuda(device) = device {
            gpu::keep_freed_memory(&device.cuda_stream()).map_err(candle_core::Error::wrap)?;
        }
        let engine = Self::just_as_asked(network, device, arithmetic)?;
        #[cfg(feature = "cudnn")]
        if arithmetic == (Arithmetic::Halves { fused: true }) && !engine.fuses_all()? {
            return Self::just_as_asked(network, device, Arithmetic::Halves { fused: false });
        }
        Ok(engine)
    }

    fn just_as_asked(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self> {
        let dtype = if arithmetic == Arithmetic::Floats { DType::F32 } else { DType::BF16 };
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
            Arithmetic::Floats => None,
            Arithmetic::Halves { fused } => Some(own(fused)?),
        };
        let network = match arithmetic {
            Arithmetic::Halves { fused: true } => with_exact_biases(network).try_map(convert)?,
            _ => network.try_map(convert)?,
        };
        Ok(Self { network, crossing: Crossing::default(), device: device.clone(), halves })
    }

    /// Whether there are fused convolutions for all of them in a batch of usual size.
    #[cfg(feature = "cudnn")]
    fn fuses_all(&self) -> Result<bool> {
        let has_kernel = |fused: &Fused, side: usize, shortcut: bool| {
            let layout = Layout::contiguous((GPU_BATCH, side, side, fused.filters.dim(3)?));
            self.fuses(fused, &layout, shortcut)
        };
        let (mut all, mut side) = (true, IMAGE_SIDE / 4);
        for Block { conv1, conv2, downsample } in self.network.stages.iter().flatten() {
            let downsample = downsample.as_ref().map_or(Ok(true), |conv| has_kernel(&conv.fused, side, false))?;
            all &= downsample && has_kernel(&conv1.fused, side, false)?;
            side /= conv1.fused.convolve.stride;
            all &= has_kernel(&conv2.fused, side, true)?;
        }
        Ok(all)
    }

    /// How it computes.
    #[cfg(feature = "cudnn")]
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        match &self.halves {
            Some(halves) => Arithmetic::Halves { fused: halves.fused },
            None => Arithmetic::Floats,
        }
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `sinks`, one per map and image. Grey and colour images pass
    /// apart: no image's maps depend on those beside it, but for the kernels that cuDNN takes for so many.
    pub(crate) fn run<S: FeatureSink>(&self, images: &[Vec<f32>], sinks: &mut [(Source, Vec<S>)]) -> Result<()> {
        let is_grey = |image: &Vec<f32>| image.len() == IMAGE_SIDE * IMAGE_SIDE;
        if images.iter().all(is_grey) || !images.iter().any(is_grey) {
            return self.run_alike(images, sinks);
        }
        for grey in [true, false] {
            let alike: Vec<Vec<f32>> = images.iter().filter(|image| is_grey(image) == grey).cloned().collect();
            let mut of_alike: Vec<(Source, Vec<&mut S>)> = Vec::with_capacity(sinks.len());
            for (source, sinks) in &mut *sinks {
                let of_images = images.iter().zip(sinks).filter(|(image, _)| is_grey(image) == grey);
                of_alike.push((*source, of_images.map(|(_, sink)| sink).collect()));
            }
            self.run_alike(&alike, &mut of_alike)?;
        }
        Ok(())
    }

    /// The same of images of which all are grey, or none.
    fn run_alike<S: FeatureSink>(&self, images: &[Vec<f32>], sinks: &mut [(Source, Vec<S>)]) -> Result<()> {
        let mut departures = Departures::default();
        let depth = sinks.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0);
        let leave = |stage, map: &Tensor| departures.leave(&self.crossing, stage, map, sinks, true);
        let passed = self.input(images).and_then(|input| self.pass(&input, depth, leave));
        #[cfg(feature = "cudnn")]
        if let (Err(_), Device::Cuda(device)) = (&passed, &self.device) {
            // Mostly for want of memory, of which what is kept for another size of batch may be needed. What failed counts, not this.
            let _ = gpu::release_freed_memory(&device.cuda_stream());
        }
        passed?;
        departures.arrive(&self.crossing, sinks)
    }

    /// Seconds of each of `times` passes over `images`, which lie on the device already, as all maps stay there.
    #[cfg(feature = "cudnn")]
    pub(crate) fn seconds_on_device(&self, images: &[Vec<f32>], times: usize) -> Result<Vec<f64>> {
        let (input, depth) = (self.input(images)?, self.network.stages.len());
        let pass = |_| {
            self.device.synchronize()?;
            let begun = std::time::Instant::now();
            self.pass(&input, depth, |_, _| Ok(()))?;
            self.device.synchronize()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        (0..times).map(pass).collect()
    }

    /// How long the stem's kernel takes, and those that cuDNN has for each other convolution of a pass over `images`, which lie on the GPU
    /// already, as a mean of `times`. This thread's passes over as many images run the fastest from then on. Nothing where no such kernels
    /// are used.
    #[cfg(feature = "cudnn")]
    pub(crate) fn take_fastest_kernels(&self, images: &[Vec<f32>], times: usize) -> Result<Vec<KernelTimes>> {
        if !self.halves.as_ref().is_some_and(|halves| halves.fused) {
            return Ok(Vec::new());
        }
        let (input, device) = (self.input(images)?, self.device.as_cuda_device()?);
        let seconds = on_gpu::mean_seconds(device, times, || self.stem(&input).map(drop))?;
        let mut all = vec![KernelTimes { convolution: "stem".to_owned(), seconds: vec![Some(seconds)] }];
        let mut time = |convolution: String, fused: &Fused, input: &Tensor, shortcut: Option<&Tensor>| {
            let seconds = cudnn::take_fastest_kernel(fused, input, shortcut, times)?;
            all.push(KernelTimes { convolution, seconds });
            Ok::<_, candle_core::Error>(())
        };
        let mut hidden = self.stem(&input)?;
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

    /// The images on the device, (N, 224, 224, 1 or 3).
    fn input(&self, images: &[Vec<f32>]) -> Result<Tensor> {
        let colours = images.first().map_or(1, |image| image.len() / (IMAGE_SIDE * IMAGE_SIDE));
        let shape = (images.len(), IMAGE_SIDE, IMAGE_SIDE, colours);
        self.crossing.to_device(images, &self.device)?.reshape(shape)
    }

    /// Takes `input` through `depth` stages, and gives the map of each (N, H, W, C) to `take`, with the stage's number from 1 on.
    fn pass(&self, input: &Tensor, depth: usize, mut take: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
        let mut hidden = self.stem(input)?; // (N, 56, 56, 64)
        for (index, blocks) in self.network.stages[..depth].iter().enumerate() {
            for block in blocks {
                hidden = self.block(block, &hidden)?;
            }
            take(index + 1, &hidden)?;
        }
        Ok(())
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

    fn block(&self, block: &Block<Conv>, input: &Tensor) -> Result<Tensor> {
        let shortcut = match &block.downsample {
            Some(downsample) => self.conv(downsample, input, None)?,
            None => input.clone(),
        };
        let inner = self.conv(&block.conv1, input, None)?;
        self.conv(&block.conv2, &inner, Some(&shortcut))
    }

    fn conv(&self, Conv { fused, bias }: &Conv, input: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        if self.fuses(fused, input.layout(), shortcut.is_some())? {
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
    fn fuses(&self, fused: &Fused, input: &Layout, shortcut: bool) -> Result<bool> {
        if !self.halves.as_ref().is_some_and(|halves| halves.fused) {
            return Ok(false);
        }
        #[cfg(feature = "cudnn")]
        if let Device::Cuda(device) = &self.device {
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

/// The values of a tensor of the CPU, which lies there as it is.
fn on_cpu<'a, T: candle_core::WithDType>(
    storage: &'a candle_core::CpuStorage,
    layout: &candle_core::Layout,
) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&storage.as_slice::<T>()?[begin..end]),
        None => candle_core::bail!("the activations do not lie one behind the other"),
    }
}

#[cfg(not(feature = "cudnn"))]
impl Kernels {
    fn on(_: &Device) -> Result<Self> {
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests;
