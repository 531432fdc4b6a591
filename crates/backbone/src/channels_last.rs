//! The network with channels last: on a GPU cuDNN's convolutions, which take this layout to tensor cores as it is, and kernels of our own
//! between them; on the CPU twins of all, which the tests compare. Numbers are multiplied as they are stored, or as pairs.

mod convolve;
#[cfg(feature = "cudnn")]
mod cudnn;
mod direct;
mod exact_biases;
mod finish;
mod fused;
#[cfg(feature = "cudnn")]
mod on_gpu;
mod pairs;
mod stem;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor};
use direct::Direct;
use pairs::Pairs;
use sources::Source;

#[cfg(feature = "cudnn")]
use crate::backbone::KernelTimes;
use crate::{
    Block, FeatureSink, FoldedConv, Network,
    backbone::Arithmetic,
    crossing::{Crossing, Departures},
    preprocess::IMAGE_SIDE,
};

/// Kernels between the convolutions, on one GPU.
#[derive(Clone, Debug, Default)]
struct Kernels {
    #[cfg(feature = "cudnn")]
    card: Option<std::sync::Arc<gpu::Card>>,
}

/// The network with channels last, and the way of images to it and of maps from it.
#[derive(Debug)]
pub(crate) struct ChannelsLast {
    pass: Pass,
    crossing: Crossing,
    device: Device,
}

/// The network by how it multiplies.
#[derive(Debug)]
enum Pass {
    Direct(Box<Direct>),
    Pairs(Box<Pairs>),
}

impl ChannelsLast {
    /// Without pairs or fused convolutions, unless there are kernels for all of them in a batch of usual size.
    pub(crate) fn new(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self> {
        // Each pass gives back what it took, and the next takes as much.
        #[cfg(feature = "cudnn")]
        if let Device::Cuda(device) = device {
            gpu::keep_freed_memory(&device.cuda_stream()).map_err(candle_core::Error::wrap)?;
        }
        let pass = if arithmetic == (Arithmetic::Floats { pairs: true }) && Pairs::has_kernels(network, device)? {
            Pass::Pairs(Box::new(Pairs::new(network, device)?))
        } else {
            Pass::Direct(Box::new(Direct::new(network, device, arithmetic)?))
        };
        Ok(Self::of(pass, device))
    }

    fn of(pass: Pass, device: &Device) -> Self {
        Self { pass, crossing: Crossing::default(), device: device.clone() }
    }

    /// How it computes.
    #[cfg(feature = "cudnn")]
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        match &self.pass {
            Pass::Direct(direct) => direct.arithmetic(),
            Pass::Pairs(_) => Arithmetic::Floats { pairs: true },
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
        let (input, depth) = (self.input(images)?, Source::FEATURE_MAPS.len());
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
        match &self.pass {
            Pass::Direct(direct) => direct.take_fastest_kernels(&self.input(images)?, times),
            Pass::Pairs(_) => Ok(Vec::new()),
        }
    }

    /// The images on the device, (N, 224, 224, 1 or 3).
    fn input(&self, images: &[Vec<f32>]) -> Result<Tensor> {
        let colours = images.first().map_or(1, |image| image.len() / (IMAGE_SIDE * IMAGE_SIDE));
        let shape = (images.len(), IMAGE_SIDE, IMAGE_SIDE, colours);
        self.crossing.to_device(images, &self.device)?.reshape(shape)
    }

    /// Takes `input` through `depth` stages, and gives the map of each (N, H, W, C) to `take`, with the stage's number from 1 on.
    fn pass(&self, input: &Tensor, depth: usize, take: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
        match &self.pass {
            Pass::Direct(direct) => direct.pass(input, depth, take),
            Pass::Pairs(pairs) => pairs.pass(input, depth, take),
        }
    }
}

/// Takes `hidden`, which the stem gave, through `stages` by means of `conv`, which is given what a convolution reads and the shortcut that is
/// added, if there is one. `take` is given what each stage gives, with its number from 1 on.
fn through_stages<C>(
    stages: &[[Block<C>; 2]],
    mut hidden: Tensor,
    conv: impl Fn(&C, &Tensor, Option<&Tensor>) -> Result<Tensor>,
    mut take: impl FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    for (index, blocks) in stages.iter().enumerate() {
        for Block { conv1, conv2, downsample } in blocks {
            let shortcut = match downsample {
                Some(downsample) => conv(downsample, &hidden, None)?,
                None => hidden.clone(),
            };
            let inner = conv(conv1, &hidden, None)?;
            hidden = conv(conv2, &inner, Some(&shortcut))?;
        }
        take(index + 1, &hidden)?;
    }
    Ok(())
}

/// All convolutions of `stages` with the side in pixels of what they read, and whether a shortcut is added. `stride` is that of one.
#[cfg(feature = "cudnn")]
fn convolutions<C>(stages: &[[Block<C>; 2]], stride: impl Fn(&C) -> usize) -> Vec<(&C, usize, bool)> {
    let (mut all, mut side) = (Vec::new(), IMAGE_SIDE / 4);
    for Block { conv1, conv2, downsample } in stages.iter().flatten() {
        all.extend(downsample.as_ref().map(|conv| (conv, side, false)));
        all.push((conv1, side, false));
        side /= stride(conv1);
        all.push((conv2, side, true));
    }
    all
}

/// What lies on the CPU.
fn cpu_storage(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => candle_core::bail!("the weights are on another device"),
    }
}

/// The values of a tensor of the CPU, which lies there as it is.
fn on_cpu<'a, T: candle_core::WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
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
