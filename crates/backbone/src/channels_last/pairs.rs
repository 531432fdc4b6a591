//! The pass in 32-bit floats on tensor cores, which multiply numbers of TF32. Those have 11 of a float's 24 bits: so each float is taken apart
//! into two of them, its high part and its low one, which leave out at most 2⁻²³ of it. A product of floats is high · high + low · high +
//! high · low, but for 2⁻²¹ of it: about what rounding leaves out of a sum of floats anyway. What still sets it apart from a pass in floats
//! is that tensor cores cut off the sums that a processor rounds. (Ootomo & Yokota 2022, "Recovering single precision accuracy from Tensor
//! Cores while surpassing the FP32 theoretical peak performance", <https://arxiv.org/abs/2203.03341>.)
//!
//! So activations are (N, H, W, 3 C), of which the first C channels are high parts, the second low ones and the third the high ones again,
//! and filters are (out, kernel, kernel, 3 in) of high, high and low parts: a convolution of such numbers, which cuDNN has, adds all three
//! products up in 32-bit floats. Kernels of our own add bias and shortcut, and take the result apart for the next convolution.

mod between;
mod parts;
#[cfg(test)]
mod tests;

use between::{Finish, Join, Pool, Split};
use candle_core::{CpuStorage, CustomOp1, CustomOp2 as _, Device, Layout, Result, Shape, Tensor};
use parts::{OF_FILTERS, PARTS, taken_apart};

#[cfg(feature = "cudnn")]
use super::convolutions;
use super::{
    Kernels,
    convolve::Convolve,
    cpu_storage,
    stem::{self, EDGES, Normalise},
    through_stages,
};
use crate::{Block, FoldedConv, Network, network::STEM_CHANNELS};
#[cfg(feature = "cudnn")]
use crate::{backbone::GPU_BATCH, preprocess::IMAGE_SIDE};

/// The network with activations and filters in pairs.
#[derive(Debug)]
pub(super) struct Pairs {
    /// For grey and for colour images.
    stems: [Stem; 2],
    stages: Vec<[Block<Conv>; 2]>,
    join: Join,
}

/// From images to what the first stage reads.
#[derive(Debug)]
struct Stem {
    split: Split,
    product: Product,
    pool: Pool,
}

#[derive(Debug)]
struct Conv {
    product: Product,
    finish: Finish,
}

/// A convolution of pairs with filters that are pairs, in 32-bit floats.
#[derive(Debug)]
struct Product {
    convolve: Convolve,
    filters: Tensor,
}

impl Pairs {
    pub(super) fn new(network: &Network<FoldedConv>, device: &Device) -> Result<Self> {
        let kernels = Kernels::on(device)?;
        let stem = |colours| Stem::new(&network.stem, colours, device, &kernels);
        let conv = |conv: &FoldedConv| Conv::new(conv, device, &kernels);
        let stage = |[first, second]: &[Block<FoldedConv>; 2]| Ok([first.try_map(conv)?, second.try_map(conv)?]);
        Ok(Self {
            stems: [stem(1)?, stem(3)?],
            stages: network.stages.iter().map(stage).collect::<Result<_>>()?,
            join: Join { kernels: kernels.clone() },
        })
    }

    /// Whether there are kernels for a batch of usual size. (None with `NVIDIA_TF32_OVERRIDE=0`, which forbids TF32.)
    #[cfg_attr(not(feature = "cudnn"), expect(unused_variables, reason = "the CPU's twin does them all"))]
    #[cfg_attr(not(feature = "cudnn"), expect(clippy::unnecessary_wraps, reason = "cuDNN can fail"))]
    pub(super) fn has_kernels(network: &Network<FoldedConv>, device: &Device) -> Result<bool> {
        #[cfg(feature = "cudnn")]
        if let Device::Cuda(device) = device {
            for (convolve, [input, filters]) in products(network) {
                if !super::cudnn::has_kernel_of_sums(convolve, &input, &filters, device)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes images (N, 224, 224, 1 or 3) through `depth` stages, and gives the map of each, (N, H, W, C), to `take`.
    pub(super) fn pass(
        &self,
        images: &Tensor,
        depth: usize,
        mut take: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let [grey, colour] = &self.stems;
        let Stem { split, product, pool } = if images.dim(3)? == 1 { grey } else { colour };
        let hidden = images.apply_op1_no_bwd(split)?.apply_op1_no_bwd(product)?.apply_op1_no_bwd(pool)?;
        let conv = |conv: &Conv, input: &Tensor, shortcut: Option<&Tensor>| {
            let sums = input.apply_op1_no_bwd(&conv.product)?;
            match shortcut {
                Some(shortcut) => sums.apply_op2_no_bwd(shortcut, &conv.finish),
                None => sums.apply_op1_no_bwd(&conv.finish),
            }
        };
        through_stages(&self.stages[..depth], hidden, conv, |stage, map| {
            take(stage, &map.apply_op1_no_bwd(&self.join)?)
        })
    }
}

/// The convolutions of a batch of usual size, with the layouts of what each reads and of its filters.
#[cfg(feature = "cudnn")]
fn products(network: &Network<FoldedConv>) -> Vec<(Convolve, [Layout; 2])> {
    let product = |conv: &FoldedConv, side: usize, channels: usize| {
        let shape = conv.shape;
        let input = Layout::contiguous((GPU_BATCH, side, side, channels));
        let filters = Layout::contiguous((shape.out_channels, shape.kernel, shape.kernel, channels));
        (Convolve { stride: shape.stride, padding: shape.padding }, [input, filters])
    };
    let stems = [1, 3].map(|colours| product(&network.stem, IMAGE_SIDE, stem_channels(colours)));
    let others = convolutions(&network.stages, |conv| conv.shape.stride).into_iter();
    stems.into_iter().chain(others.map(|(conv, side, _)| product(conv, side, PARTS * conv.shape.in_channels))).collect()
}

/// Channels of images of so many colours in pairs: zeros make each pixel begin where four numbers are loaded at once.
const fn stem_channels(colours: usize) -> usize {
    4 * colours
}

impl Stem {
    fn new(stem: &FoldedConv, colours: usize, device: &Device, kernels: &Kernels) -> Result<Self> {
        let filters = taken_apart(&stem::filters(stem, colours), colours, stem_channels(colours), OF_FILTERS);
        let dims = (STEM_CHANNELS, stem::TAPS, stem::TAPS, stem_channels(colours));
        let biases = Tensor::from_vec(stem::biases(stem, colours), (EDGES, EDGES, STEM_CHANNELS), device)?;
        Ok(Self {
            split: Split { normalise: Normalise::new(colours), kernels: kernels.clone() },
            product: Product { convolve: stem::CONVOLVE, filters: Tensor::from_vec(filters, dims, device)? },
            pool: Pool { biases, kernels: kernels.clone() },
        })
    }
}

impl Conv {
    fn new(conv: &FoldedConv, device: &Device, kernels: &Kernels) -> Result<Self> {
        let shape = conv.shape;
        let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
        let filters = Tensor::from_slice(&conv.weights, dims, &Device::Cpu)?.permute((0, 2, 3, 1))?;
        let filters = filters.flatten_all()?.to_vec1::<f32>()?;
        let channels = PARTS * shape.in_channels;
        let dims = (shape.out_channels, shape.kernel, shape.kernel, channels);
        let filters = Tensor::from_vec(taken_apart(&filters, shape.in_channels, channels, OF_FILTERS), dims, device)?;
        let bias = Tensor::from_slice(&conv.bias, shape.out_channels, device)?;
        Ok(Self {
            product: Product { convolve: Convolve { stride: shape.stride, padding: shape.padding }, filters },
            finish: Finish { bias, relu: conv.relu, kernels: kernels.clone() },
        })
    }
}

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "convolution of pairs"
    }

    fn cpu_fwd(&self, input: &CpuStorage, of_input: &Layout) -> Result<(CpuStorage, Shape)> {
        let (filters, of_filters) = self.filters.storage_and_layout();
        self.convolve.cpu_fwd(input, of_input, cpu_storage(&filters)?, of_filters)
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        of_input: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        if let Some(sums) = super::cudnn::run_sums(self.convolve, (input, of_input), &self.filters)? {
            return Ok(sums);
        }
        // Of another number of images than usual there may be no such kernel: numbers of TF32 may as well be multiplied as floats.
        let (filters, of_filters) = self.filters.storage_and_layout();
        self.convolve.cuda_fwd(input, of_input, super::on_gpu::gpu_storage(&filters)?, of_filters)
    }
}
