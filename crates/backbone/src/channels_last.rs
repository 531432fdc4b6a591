//! The network with channels last, in bfloat16 (but for the stem, which is in f16 and so rounds the image eight times more finely) or in
//! 32-bit floats that are multiplied as such: on a GPU cuDNN's convolutions, which take this layout to tensor cores as it is, and
//! between them kernels that read each activation once and write it once. On the CPU twins of both, which the tests compare.

mod convolve;
mod finish;
mod stem_cells;

use candle_core::{DType, Device, Result, Tensor};
use convolve::Convolve;
use finish::{Finish, FinishPool};
use sources::Source;
use stem_cells::{StemCells, stem_filters};

use crate::{
    Block, FeatureSink, FoldedConv, Network,
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
    stems: [Tensor; 2],
    kernels: Kernels,
}

#[derive(Debug)]
struct Conv {
    filters: Tensor,
    /// (out), in floats.
    bias: Tensor,
    stride: usize,
    padding: usize,
    relu: bool,
}

impl ChannelsLast {
    /// In 32-bit floats, or with `halves` in bfloat16.
    pub(crate) fn new(network: &Network<FoldedConv>, device: &Device, halves: bool) -> Result<Self> {
        let dtype = if halves { DType::BF16 } else { DType::F32 };
        let convert = |conv: &FoldedConv| -> Result<Conv> {
            let shape = conv.shape;
            let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
            let filters = Tensor::from_slice(&conv.weights, dims, &Device::Cpu)?.permute((0, 2, 3, 1))?.contiguous()?;
            Ok(Conv {
                filters: filters.to_dtype(dtype)?.to_device(device)?,
                bias: Tensor::from_slice(&conv.bias, shape.out_channels, device)?,
                stride: shape.stride,
                padding: shape.padding,
                relu: conv.relu,
            })
        };
        let own = || -> Result<Halves> {
            let stems = [stem_filters(&network.stem, 1, device)?, stem_filters(&network.stem, 3, device)?];
            Ok(Halves { stems, kernels: Kernels::on(device)? })
        };
        Ok(Self {
            network: network.try_map(convert)?,
            crossing: Crossing::default(),
            device: device.clone(),
            halves: halves.then(own).transpose()?,
        })
    }

    /// Whether it multiplies in bfloat16.
    #[cfg(feature = "cudnn")]
    pub(crate) const fn halves(&self) -> bool {
        self.halves.is_some()
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `sinks`, one per map and image. Grey and colour images pass
    /// apart: no image's maps depend on those beside it.
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
        self.pass(&self.input(images)?, depth, |stage, map| departures.leave(&self.crossing, stage, map, sinks, true))?;
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
        let Conv { filters, bias, stride, padding, .. } = &self.network.stem;
        let Some(Halves { stems: [grey, colour], kernels }) = &self.halves else {
            let convolve = Convolve { stride: *stride, padding: *padding };
            let sums = normalised(images)?.apply_op2_no_bwd(filters, &convolve)?; // (N, 112, 112, 64)
            // Zeros serve as padding, since nothing is negative after the ReLU.
            let stem = sums.broadcast_add(bias)?.relu()?.permute((0, 3, 1, 2))?;
            let padded = stem.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.contiguous()?;
            return padded.max_pool2d_with_stride(3, 2)?.permute((0, 2, 3, 1))?.contiguous();
        };
        let stem = if images.dim(3)? == 1 { grey } else { colour };
        let cells = images.apply_op1_no_bwd(&StemCells { kernels: kernels.clone() })?;
        let sums = cells.apply_op2_no_bwd(stem, &Convolve { stride: 1, padding: 0 })?; // (N, 112, 112, 64)
        sums.apply_op2_no_bwd(bias, &FinishPool { kernels: kernels.clone() })
    }

    fn block(&self, block: &Block<Conv>, input: &Tensor) -> Result<Tensor> {
        let shortcut = match &block.downsample {
            Some(downsample) => self.conv(downsample, input, None)?,
            None => input.clone(),
        };
        let inner = self.conv(&block.conv1, input, None)?;
        self.conv(&block.conv2, &inner, Some(&shortcut))
    }

    fn conv(&self, conv: &Conv, input: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        let Conv { stride, padding, relu, .. } = *conv;
        let sums = input.apply_op2_no_bwd(&conv.filters, &Convolve { stride, padding })?;
        let Some(Halves { kernels, .. }) = &self.halves else {
            let sums = sums.broadcast_add(&conv.bias)?;
            let sums = shortcut.map_or(Ok(sums.clone()), |shortcut| sums + shortcut)?;
            return if relu { sums.relu() } else { Ok(sums) };
        };
        let finish = Finish { relu, kernels: kernels.clone() };
        match shortcut {
            Some(shortcut) => sums.apply_op3_no_bwd(&conv.bias, shortcut, &finish),
            None => sums.apply_op2_no_bwd(&conv.bias, &finish),
        }
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

#[cfg(feature = "cudnn")]
mod on_gpu {
    use std::sync::Arc;

    use candle_core::{
        CudaDevice, CudaStorage, Device, Error, Layout, Result, Shape,
        cuda_backend::{
            CudaDType,
            cudarc::driver::{CudaSlice, CudaStream, DevicePtr as _, DevicePtrMut as _, DeviceRepr, SyncOnDrop},
        },
    };
    use gpu::{Card, Machine as _, PassKernel, Program};

    use super::Kernels;

    impl Kernels {
        pub(super) fn on(device: &Device) -> Result<Self> {
            let Device::Cuda(device) = device else { return Ok(Self::default()) };
            let card = Card::on(device.cuda_stream(), &Program::pass()).map_err(Error::wrap)?;
            Ok(Self { card: Some(Arc::new(card)) })
        }

        /// Asks the GPU for `kernel`.
        ///
        /// # Safety
        /// Its addresses are those of memory that holds what it reads and writes.
        pub(super) unsafe fn launch(&self, kernel: &PassKernel) -> Result<()> {
            let Some(card) = &self.card else { candle_core::bail!("the kernels are not on this device") };
            // SAFETY: the caller vouches for the addresses; the rest is the kernel's.
            unsafe { card.launch(kernel.name, [kernel.blocks, 1, 1], kernel.threads, &kernel.arguments) }
                .map_err(Error::wrap)
        }
    }

    /// Fails unless a tensor lies in its memory as it is.
    pub(super) fn check_whole(layout: &Layout) -> Result<()> {
        if layout.is_contiguous() && layout.start_offset() == 0 {
            return Ok(());
        }
        candle_core::bail!("the activations do not lie one behind the other")
    }

    /// Where a tensor of a GPU lies, which must lie there as it is, for kernels on `stream`. Whoever frees it, on whatever stream it
    /// was made, waits for what `stream` was asked for before the guard was dropped.
    pub(super) fn place<'a, T: CudaDType + 'a>(
        storage: &'a CudaStorage,
        layout: &Layout,
        stream: &'a CudaStream,
    ) -> Result<(u64, SyncOnDrop<'a>)> {
        check_whole(layout)?;
        Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream))
    }

    /// A tensor of `shape` that `write` has a kernel write whole: it is told where the tensor lies, and the stream of `device`.
    ///
    /// # Safety
    /// All of it is written.
    pub(super) unsafe fn written<T: CudaDType + DeviceRepr>(
        device: &CudaDevice,
        shape: Shape,
        write: impl FnOnce(u64, &CudaStream) -> Result<()>,
    ) -> Result<(CudaStorage, Shape)> {
        let stream = device.cuda_stream();
        // SAFETY: the caller vouches for what is written before anybody reads.
        let mut out: CudaSlice<T> = unsafe { device.alloc(shape.elem_count()) }?;
        {
            let (address, _out) = out.device_ptr_mut(&stream);
            write(address, &stream)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }
}

#[cfg(test)]
mod tests;
