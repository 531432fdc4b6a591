use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};
use half::{bf16, f16};

use super::{Kernels, convolve::Convolve, on_cpu};
use crate::{
    FoldedConv,
    network::STEM_CHANNELS,
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD},
};

/// What a grey value is normalised by before it is rounded: the means of the three channels' own numbers, so that what is left to
/// the biases is small.
const GREY_MEAN: f32 = 0.449;
const GREY_STD: f32 = 0.226;

/// Taps of the stem's filters along a side.
pub(super) const TAPS: usize = 7;

pub(super) const CONVOLVE: Convolve = Convolve { stride: 2, padding: 3 };

/// Side of the convolution's sums and of what is pooled from them, in pixels.
pub(super) const SUM_SIDE: usize = IMAGE_SIDE / 2;
pub(super) const POOLED_SIDE: usize = IMAGE_SIDE / 4;

/// Channels of a block of the kernel.
const BLOCK_CHANNELS: usize = 32;

/// How it is told apart where along a side filters stand: outside, at 0, at 1, within, at the end.
pub(super) const EDGES: usize = 5;

/// The network's stem: from images (N, 224, 224, 1 or 3) in 32-bit floats to what the first stage reads, (N, 56, 56, 64) in bfloat16:
/// a convolution of seven by seven, + bias, ReLU, and the largest of windows of three by three, at every second place each. Pixels and
/// filters are multiplied in f16, which rounds the image eight times more finely than bfloat16; sums are rounded once, in the end.
///
/// A grey pixel is one number, by which the filters' three channels are multiplied at once. What these are normalised by differs; the
/// difference is the same for all images, but for where the filter stands at the image's edges, since what lies beyond them is zero in
/// each channel: it is part of the bias.
#[derive(Clone, Debug)]
pub(super) struct Stem {
    /// (64, 7, 7, 1 or 3) in f16, on the CPU.
    filters: Tensor,
    /// The same as the kernel's threads hold them, (2, 4 or 11, 4, 2, 32, 2): `stem.cu` says how.
    #[cfg_attr(
        not(any(test, feature = "cudnn")),
        expect(dead_code, reason = "the CPU's twin reads the filters as they are")
    )]
    pub(super) in_lanes: Tensor,
    /// (5, 5, 64), by where the filter stands.
    pub(super) biases: Tensor,
    normalise: Normalise,
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    kernels: Kernels,
}

/// What becomes of the pixels of images (N, 224, 224, 1 or 3) before they are multiplied.
#[derive(Clone, Debug)]
pub(super) struct Normalise {
    pub(super) colours: usize,
    /// What pixels are multiplied by, and what is then added, by colour.
    pub(super) rates: [f32; 3],
    pub(super) offsets: [f32; 3],
}

impl Normalise {
    /// For images of `colours` channels, 1 or 3.
    pub(super) fn new(colours: usize) -> Self {
        let offset = |channel: usize| -IMAGENET_MEAN[channel] / IMAGENET_STD[channel];
        let (rates, offsets) = match colours {
            1 => ([1.0 / GREY_STD, 0.0, 0.0], [-GREY_MEAN / GREY_STD, 0.0, 0.0]),
            _ => (IMAGENET_STD.map(|std| 1.0 / std), [0, 1, 2].map(offset)),
        };
        Self { colours, rates, offsets }
    }

    /// How many images of this layout there are; an error if they are no such images.
    pub(super) fn count(&self, images: &Layout) -> Result<usize> {
        let (count, height, width, colours) = images.shape().dims4()?;
        if [height, width, colours] != [IMAGE_SIDE, IMAGE_SIDE, self.colours] {
            candle_core::bail!("the stem was given images of {height} by {width} pixels of {colours} channels");
        }
        Ok(count)
    }

    /// On the CPU.
    pub(super) fn pixels(&self, images: &[f32]) -> Vec<f32> {
        let Self { colours, rates, offsets } = self;
        let pixels = images.iter().enumerate();
        pixels.map(|(at, value)| value.mul_add(rates[at % colours], offsets[at % colours])).collect()
    }
}

impl Stem {
    /// For images of `colours` channels, 1 or 3.
    pub(super) fn new(stem: &FoldedConv, colours: usize, device: &Device, kernels: Kernels) -> Result<Self> {
        let filters: Vec<f16> = filters(stem, colours).into_iter().map(f16::from_f32).collect();
        let (groups, rows) = (STEM_CHANNELS / BLOCK_CHANNELS, (TAPS * colours).div_ceil(2));
        let in_lanes = Tensor::from_vec(in_lanes(&filters, colours), (groups, rows, 4, 2, 32, 2), &Device::Cpu)?;
        let filters = Tensor::from_vec(filters, (STEM_CHANNELS, TAPS, TAPS, colours), &Device::Cpu)?;
        let biases = Tensor::from_vec(biases(stem, colours), (EDGES, EDGES, STEM_CHANNELS), device)?;
        let normalise = Normalise::new(colours);
        Ok(Self { filters, in_lanes: in_lanes.to_device(device)?, biases, normalise, kernels })
    }

    /// The kernel for `count` images.
    #[cfg(any(test, feature = "cudnn"))]
    pub(super) fn kernel(&self, [images, in_lanes, biases, out]: [u64; 4], count: usize) -> Result<gpu::PassKernel> {
        let &Normalise { colours, rates, offsets } = &self.normalise;
        Ok(gpu::PassKernel::stem([images, in_lanes, biases, out], count, colours, rates, offsets))
    }

    /// Of images of this layout: how many, and what becomes of them.
    fn extent(&self, images: &Layout) -> Result<(usize, Shape)> {
        let count = self.normalise.count(images)?;
        Ok((count, (count, POOLED_SIDE, POOLED_SIDE, STEM_CHANNELS).into()))
    }
}

/// (64, 7, 7, `colours`).
pub(super) fn filters(stem: &FoldedConv, colours: usize) -> Vec<f32> {
    let weight = |filter: usize, channel: usize, tap: usize| stem.weights[(filter * 3 + channel) * TAPS * TAPS + tap];
    let value = |at: usize| {
        let (colour, tap, filter) = (at % colours, at / colours % (TAPS * TAPS), at / colours / (TAPS * TAPS));
        match colours {
            1 => (0..3).map(|channel| weight(filter, channel, tap) / IMAGENET_STD[channel] * GREY_STD).sum(),
            _ => weight(filter, colour, tap),
        }
    };
    (0..STEM_CHANNELS * TAPS * TAPS * colours).map(value).collect()
}

/// `filters` as the kernel's threads hold them.
fn in_lanes(filters: &[f16], colours: usize) -> Vec<f16> {
    let steps = (TAPS * colours).div_ceil(2);
    let value = |at: usize| {
        let (side, lane, half, pair) = (at % 2, at / 2 % 32, at / 64 % 2, at / 128 % 4);
        let (step, group) = (at / 512 % steps, at / 512 / steps);
        // Four of a warp's lanes share a column of the product; its first and second are two channels beside each other.
        let (column, x) = (lane / 4, lane % 4 * 2 + side);
        let channel = group * BLOCK_CHANNELS + column / 2 * 8 + pair * 2 + column % 2;
        let (row, y, colour) = (step * 2 + half, (step * 2 + half) % TAPS, (step * 2 + half) / TAPS);
        let is_tap = row < TAPS * colours && x < TAPS;
        if is_tap { filters[((channel * TAPS + y) * TAPS + x) * colours + colour] } else { f16::ZERO }
    };
    (0..STEM_CHANNELS / BLOCK_CHANNELS * steps * 512).map(value).collect()
}

/// (5, 5, 64).
pub(super) fn biases(stem: &FoldedConv, colours: usize) -> Vec<f32> {
    // What a channel of an image's every pixel is more than the grey one says.
    let excess = match colours {
        1 => [0, 1, 2].map(|channel| f64::from(GREY_MEAN - IMAGENET_MEAN[channel]) / f64::from(IMAGENET_STD[channel])),
        _ => [0.0; 3],
    };
    let value = |at: usize| {
        let (filter, x, y) = (at % STEM_CHANNELS, at / STEM_CHANNELS % EDGES, at / STEM_CHANNELS / EDGES);
        let (Some(ys), Some(xs)) = (taps_within(y), taps_within(x)) else { return f32::MIN };
        let weight = |channel: usize, y: usize, x: usize| {
            f64::from(stem.weights[((filter * 3 + channel) * TAPS + y) * TAPS + x])
        };
        let taps = ys.flat_map(|y| xs.clone().map(move |x| (y, x)));
        let more: f64 = taps.flat_map(|(y, x)| (0..3).map(move |c| weight(c, y, x) * excess[c])).sum();
        (f64::from(stem.bias[filter]) + more) as f32
    };
    (0..EDGES * EDGES * STEM_CHANNELS).map(value).collect()
}

/// The taps that lie within the image along a side, by where the filter stands; none outside.
const fn taps_within(edge: usize) -> Option<std::ops::Range<usize>> {
    match edge {
        0 => None,
        1 => Some(3..TAPS),
        2 => Some(1..TAPS),
        3 => Some(0..TAPS),
        _ => Some(0..TAPS - 2),
    }
}

/// Where a filter stands along a side, of those that are told apart.
const fn edge(at: usize) -> usize {
    match at {
        0 | 1 => at + 1,
        _ if at < SUM_SIDE - 1 => 3,
        _ => 4,
    }
}

/// Of the convolution's sums (N, 112, 112, 64): + `biases` (5, 5, 64), ReLU and the max-pool, (N, 56, 56, 64).
pub(super) fn pooled(sums: &[f32], biases: &[f32]) -> Vec<f32> {
    let channels = STEM_CHANNELS;
    let pooled = |at: usize| {
        let (channel, pixel) = (at % channels, at / channels);
        let (image, y, x) = (pixel / POOLED_SIDE / POOLED_SIDE, pixel / POOLED_SIDE % POOLED_SIDE, pixel % POOLED_SIDE);
        let around = |at: usize| (2 * at).saturating_sub(1)..2 * at + 2;
        let value = |(y, x): (usize, usize)| {
            sums[((image * SUM_SIDE + y) * SUM_SIDE + x) * channels + channel]
                + biases[(edge(y) * EDGES + edge(x)) * channels + channel]
        };
        let window = around(y).flat_map(|y| around(x).map(move |x| (y, x)));
        // What is no number stays.
        let larger = |one: f32, other: f32| if other > one || other.is_nan() { other } else { one };
        window.map(value).fold(0.0, larger)
    };
    (0..sums.len() / 4).map(pooled).collect()
}

impl CustomOp1 for Stem {
    fn name(&self) -> &'static str {
        "stem"
    }

    fn cpu_fwd(&self, images: &CpuStorage, of_images: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, shape) = self.extent(of_images)?;
        let pixels = self.normalise.pixels(on_cpu::<f32>(images, of_images)?);
        let pixels: Vec<f32> = pixels.into_iter().map(|value| f16::from_f32(value).to_f32()).collect();
        let extent = CONVOLVE.extent(of_images, self.filters.layout())?;
        let filters = self.filters.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let (sums, biases) = (CONVOLVE.sums(extent, &pixels, &filters), self.biases.flatten_all()?.to_vec1::<f32>()?);
        let pooled = pooled(&sums, &biases).into_iter().map(bf16::from_f32).collect();
        Ok((CpuStorage::BF16(pooled), shape))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        images: &candle_core::CudaStorage,
        of_images: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use super::on_gpu::{place, place_of, written};

        let (count, shape) = self.extent(of_images)?;
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<bf16>(&images.device, shape, |out, stream| {
                let (images, _images) = place::<f32>(images, of_images, stream)?;
                let (in_lanes, biases) = (self.in_lanes.storage_and_layout(), self.biases.storage_and_layout());
                let (in_lanes, _in_lanes) = place_of::<f16>(&in_lanes, stream)?;
                let (biases, _biases) = place_of::<f32>(&biases, stream)?;
                // SAFETY: images and output are as their layouts say, filters and biases are those of the images' colours.
                self.kernels.launch(&self.kernel([images, in_lanes, biases, out], count)?)
            })
        }
    }
}
