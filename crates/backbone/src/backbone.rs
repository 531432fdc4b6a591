use std::{fmt, time::Instant};

use candle_core::{DType, Device};
use choice::choice;
use half::bf16;
use kernels::{Isa, ShapeError, UnavailableIsa};
use serde::Serialize;
use sources::Source;

#[cfg(feature = "cudnn")]
use crate::channels_last::ChannelsLast;
use crate::{
    Calibration, FeatureBatch, FeatureSink, FoldedConv, Network, Weights, WeightsError, calibration::Calibrator,
    candle_engine::CandleEngine, native_engine::NativeEngine, preprocess, quantised_engine::QuantisedEngine,
};

/// Version of everything between an image's bytes and its feature maps: decoding, preprocessing, network.
/// Raised whenever a stored value could change by more than rounding, so that caches become stale.
pub const NUMERICS_VERSION: u32 = 1;

/// Images of a pass on the CPU: some for each thread.
pub(crate) const CPU_BATCH: usize = 32;

/// Images of a pass on a GPU: asking it for the kernels takes as long as computing 32 images.
pub(crate) const GPU_BATCH: usize = 256;

choice! {
    /// What runs the convolutions.
    #[derive(Default)]
    pub enum Engine for "extract.engine" {
        /// The one that made the features that are there; without any, native on the CPU, and on a GPU cuDNN if the program was
        /// built with it, else candle.
        #[default]
        Auto = "auto",
        /// This project's CPU kernels.
        Native = "native",
        /// candle, on any device.
        Candle = "candle",
        /// cuDNN's convolutions with channels last, on NVIDIA GPUs.
        Cudnn = "cudnn",
    }
}

impl Engine {
    /// What [`Engine::Auto`] means on `device`, with no features to be of one kind with.
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Native,
            Device::Cuda(_) if cfg!(feature = "cudnn") => Self::Cudnn,
            _ => Self::Candle,
        }
    }
}

/// How long the kernels take that do one convolution of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTimes {
    /// Its name, like `layer1.0.conv1`.
    pub convolution: String,
    /// Seconds of each, first of the heuristics' first choice; none for those that failed. The stem has one, our own.
    pub seconds: Vec<Option<f64>>,
}

/// How a pass with cuDNN computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// In 32-bit floats; with `pairs`, each as the sum of two numbers that tensor cores multiply, where there are kernels for that.
    Floats { pairs: bool },
    /// In bfloat16; with `fused`, shortcut, bias and ReLU are done within the convolutions where there are kernels for that.
    Halves { fused: bool },
}

/// Why the backbone cannot be set up or run.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// The native engine computes on the CPU only.
    #[error("extract.engine = native runs on the CPU; use `candle` with this device, or device = cpu")]
    NativeNeedsCpu,
    /// cuDNN computes on NVIDIA GPUs only, and not in every build.
    #[error(
        "extract.engine = cudnn runs on NVIDIA GPUs, in a build with the feature cudnn (docs/gpu.md)\n\n\
         hint: set extract.engine = native, which has a cache of its own"
    )]
    NeedsCudnn,
    /// A calibration of another network.
    #[error("the calibration does not describe this network's activations")]
    Calibration,
    /// The weights are unusable.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The wished instruction set is not there.
    #[error(transparent)]
    Isa(#[from] UnavailableIsa),
    /// A kernel refused its input.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// candle failed.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
}

/// A frozen ResNet-18, ready to run.
#[derive(Debug)]
pub struct Backbone {
    runner: Runner,
}

#[derive(Debug)]
enum Runner {
    Native(Box<NativeEngine>, Isa),
    Bf16(Box<NativeEngine<bf16>>, Isa),
    Quantised(Box<QuantisedEngine>, Isa),
    Candle(Box<CandleEngine>),
    #[cfg(feature = "cudnn")]
    ChannelsLast(Box<ChannelsLast>),
}

impl Backbone {
    /// Builds the network from `weights` for `device`.
    pub fn new(weights: &Weights, engine: Engine, device: &Device) -> Result<Self, BackboneError> {
        let network = Network::read(weights)?;
        match if engine == Engine::Auto { Engine::of(device) } else { engine } {
            Engine::Native if !device.is_cpu() => Err(BackboneError::NativeNeedsCpu),
            Engine::Native | Engine::Auto => Self::on_isa(&network, Isa::choose()?),
            Engine::Candle => {
                Ok(Self { runner: Runner::Candle(Box::new(CandleEngine::new(&network, device, DType::F32)?)) })
            }
            Engine::Cudnn => Self::on_cudnn(&network, device, Arithmetic::Floats { pairs: true }),
        }
    }

    /// Builds candle's engine in bfloat16 for the GPU `device`.
    pub fn bf16_on(weights: &Weights, device: &Device) -> Result<Self, BackboneError> {
        let network = Network::read(weights)?;
        Ok(Self { runner: Runner::Candle(Box::new(CandleEngine::new(&network, device, DType::BF16)?)) })
    }

    /// Builds cuDNN's engine in bfloat16 for the GPU `device`. With `fused`, shortcut, bias and ReLU are done within its convolutions
    /// if it has kernels for that.
    pub fn bf16_on_cudnn(weights: &Weights, device: &Device, fused: bool) -> Result<Self, BackboneError> {
        Self::on_cudnn(&Network::read(weights)?, device, Arithmetic::Halves { fused })
    }

    #[cfg(feature = "cudnn")]
    fn on_cudnn(network: &Network<FoldedConv>, device: &Device, arithmetic: Arithmetic) -> Result<Self, BackboneError> {
        if !device.is_cuda() {
            return Err(BackboneError::NeedsCudnn);
        }
        Ok(Self { runner: Runner::ChannelsLast(Box::new(ChannelsLast::new(network, device, arithmetic)?)) })
    }

    #[cfg(not(feature = "cudnn"))]
    fn on_cudnn(_: &Network<FoldedConv>, _: &Device, _: Arithmetic) -> Result<Self, BackboneError> {
        Err(BackboneError::NeedsCudnn)
    }

    /// Builds the native engine for the instruction set `isa`, whatever `FMSTUDY_ISA` says.
    pub fn native(weights: &Weights, isa: Isa) -> Result<Self, BackboneError> {
        if !Isa::available().any(|available| available == isa) {
            let available: Vec<String> = Isa::available().map(|isa| isa.to_string()).collect();
            return Err(UnavailableIsa::Missing(isa, available.join(", ")).into());
        }
        Self::on_isa(&Network::read(weights)?, isa)
    }

    /// Builds the engine in bfloat16, on the fastest instruction set or the one that `FMSTUDY_ISA` forces.
    pub fn bf16(weights: &Weights) -> Result<Self, BackboneError> {
        let isa = Isa::choose()?;
        Ok(Self { runner: Runner::Bf16(Box::new(NativeEngine::new(&Network::read(weights)?, isa)?), isa) })
    }

    /// Builds the engine in 8-bit integers, on the fastest instruction set or the one that `FMSTUDY_ISA` forces.
    pub fn quantised(weights: &Weights, calibration: &Calibration) -> Result<Self, BackboneError> {
        let (network, isa) = (Network::read(weights)?, Isa::choose()?);
        if !calibration.fits(&network) {
            return Err(BackboneError::Calibration);
        }
        let engine = QuantisedEngine::new(&network, calibration, isa)?;
        Ok(Self { runner: Runner::Quantised(Box::new(engine), isa) })
    }

    /// Measures the activations of `images`, which are resized to (224, 224, 1 or 3) in [0, 1], in 32-bit floats.
    pub fn calibrate(weights: &Weights, images: &[Vec<f32>]) -> Result<Calibration, BackboneError> {
        let network = Network::read(weights)?;
        let mut calibrator = Calibrator::new(network.stages.len());
        let engine = NativeEngine::new(&network, Isa::choose()?)?;
        engine.observe(images, &mut |stage, block, input, activations| {
            calibrator.see(stage, block, input, activations);
        })?;
        Ok(calibrator.finish(images.len()))
    }

    fn on_isa(network: &Network<FoldedConv>, isa: Isa) -> Result<Self, BackboneError> {
        Ok(Self { runner: Runner::Native(Box::new(NativeEngine::new(network, isa)?), isa) })
    }

    /// Computes feature maps of `images`, which are resized to (224, 224, 1 or 3) in [0, 1] ([`preprocess::resize`]), into
    /// `sinks`: for each wanted map one sink per image. The pass goes only as deep as asked.
    pub fn run<S: FeatureSink>(
        &self,
        images: &[Vec<f32>],
        sinks: &mut [(Source, Vec<S>)],
    ) -> Result<(), BackboneError> {
        debug_assert!(images.iter().all(|image| image.len().is_multiple_of(preprocess::IMAGE_SIDE)));
        debug_assert!(sinks.iter().all(|(_, sinks)| sinks.len() == images.len()));
        match &self.runner {
            Runner::Native(engine, _) => engine.run(images, sinks)?,
            Runner::Bf16(engine, _) => engine.run(images, sinks)?,
            Runner::Quantised(engine, _) => engine.run(images, sinks)?,
            Runner::Candle(engine) => engine.run(images, sinks)?,
            #[cfg(feature = "cudnn")]
            Runner::ChannelsLast(engine) => engine.run(images, sinks)?,
        }
        Ok(())
    }

    /// Images that go well through one pass: few where their activations stay in the cache, many where a device is to be filled.
    pub fn batch(&self) -> usize {
        match &self.runner {
            Runner::Candle(engine) => engine.batch(),
            #[cfg(feature = "cudnn")]
            Runner::ChannelsLast(_) => GPU_BATCH,
            Runner::Native(..) | Runner::Bf16(..) | Runner::Quantised(..) => CPU_BATCH,
        }
    }

    /// Seconds of each of `times` passes over `images`; with cuDNN without bringing them to the GPU and maps from it.
    pub fn seconds_of_passes(&self, images: &[Vec<f32>], times: usize) -> Result<Vec<f64>, BackboneError> {
        #[cfg(feature = "cudnn")]
        if let Runner::ChannelsLast(engine) = &self.runner {
            return Ok(engine.seconds_on_device(images, times)?);
        }
        let mut maps = FeatureBatch::default();
        let pass = |_| {
            let begun = Instant::now();
            self.feature_maps_into(images, &Source::FEATURE_MAPS, &mut maps)?;
            Ok(begun.elapsed().as_secs_f64())
        };
        (0..times).map(pass).collect()
    }

    /// How long the stem takes, and the kernels that cuDNN has for each other convolution of a pass over `images`, as a mean of `times`.
    /// This thread's passes over as many images run the fastest from then on, instead of the first choice of cuDNN's heuristics. Nothing
    /// but with its fused convolutions.
    #[cfg_attr(not(feature = "cudnn"), expect(unused_variables, reason = "there are no such kernels"))]
    pub fn take_fastest_kernels(&self, images: &[Vec<f32>], times: usize) -> Result<Vec<KernelTimes>, BackboneError> {
        #[cfg(feature = "cudnn")]
        if let Runner::ChannelsLast(engine) = &self.runner {
            return Ok(engine.take_fastest_kernels(images, times)?);
        }
        Ok(Vec::new())
    }

    /// How many calls of [`run`](Self::run) go well side by side, each on a thread of its own.
    pub fn passes_at_once(&self) -> usize {
        match &self.runner {
            Runner::Candle(engine) => engine.passes_at_once(),
            #[cfg(feature = "cudnn")]
            Runner::ChannelsLast(_) => 2,
            Runner::Native(..) | Runner::Bf16(..) | Runner::Quantised(..) => 1,
        }
    }

    /// Computes the wanted feature maps into `batch`, whose memory is used again if it is large enough.
    pub fn feature_maps_into(
        &self,
        images: &[Vec<f32>],
        wanted: &[Source],
        batch: &mut FeatureBatch,
    ) -> Result<(), BackboneError> {
        self.run(images, &mut batch.sinks(images.len(), wanted))
    }

    /// [`feature_maps_into`](Self::feature_maps_into) new memory.
    pub fn feature_maps(&self, images: &[Vec<f32>], wanted: &[Source]) -> Result<FeatureBatch, BackboneError> {
        let mut batch = FeatureBatch::default();
        self.feature_maps_into(images, wanted, &mut batch)?;
        Ok(batch)
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.runner {
            Runner::Native(_, isa) => write!(f, "native ({isa})"),
            Runner::Bf16(_, isa) => write!(f, "native in bfloat16 ({isa})"),
            Runner::Quantised(_, isa) => write!(f, "native in 8-bit integers ({isa})"),
            Runner::Candle(engine) if engine.dtype() == DType::BF16 => f.write_str("candle in bfloat16"),
            Runner::Candle(_) => f.write_str("candle"),
            #[cfg(feature = "cudnn")]
            Runner::ChannelsLast(engine) => f.write_str(match engine.arithmetic() {
                Arithmetic::Floats { pairs: true } => "cuDNN",
                Arithmetic::Floats { pairs: false } => "cuDNN without tensor cores",
                Arithmetic::Halves { fused: true } => "cuDNN in bfloat16",
                Arithmetic::Halves { fused: false } => "cuDNN in bfloat16, unfused",
            }),
        }
    }
}
