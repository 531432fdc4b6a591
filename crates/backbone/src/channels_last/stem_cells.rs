use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};
use half::f16;

use super::{Kernels, on_cpu};
use crate::{
    FoldedConv,
    preprocess::{IMAGENET_MEAN, IMAGENET_STD},
};

/// What a grey value is normalised by before it is rounded: the means of the three channels' own numbers, so that what is left to
/// the second channel is small.
const GREY_MEAN: f32 = 0.449;
const GREY_STD: f32 = 0.226;

/// Taps of the stem's filters, and how many cells those are along a side.
const TAPS: usize = 7;
pub(super) const CELLS: usize = 4;

/// From images (N, side, side, 1 or 3) to cells (N, side / 2 + 3, side / 2 + 3, 8 or 16): each has the four pixels of a square of
/// two by two, so that the stem's convolution of 7 by 7 and stride 2 becomes one of 4 by 4 and stride 1 over eight channels. A
/// grey pixel has its value and 1, others have their values and 0; before and behind the image all is zero.
#[derive(Clone, Debug)]
pub(super) struct StemCells {
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

/// What images of so many colours are multiplied by, and what is then added.
pub(super) fn normalisation(colours: usize) -> ([f32; 3], [f32; 3]) {
    if colours == 1 {
        return ([1.0 / GREY_STD, 0.0, 0.0], [-GREY_MEAN / GREY_STD, 0.0, 0.0]);
    }
    let offset = |channel: usize| -IMAGENET_MEAN[channel] / IMAGENET_STD[channel];
    (IMAGENET_STD.map(|std| 1.0 / std), [0, 1, 2].map(offset))
}

/// Channels of a pixel of so many colours.
const fn pixel_channels(colours: usize) -> usize {
    if colours == 1 { 2 } else { 4 }
}

/// The stem's filters for cells of images of so many colours: (64, 4, 4, 8 or 16) in f16. Tap k of seven is pixel p of cell
/// c with k + 1 = 2 c + p.
pub(super) fn stem_filters(stem: &FoldedConv, colours: usize, device: &Device) -> Result<Tensor> {
    let (filters, channels) = (stem.shape.out_channels, pixel_channels(colours));
    let mut cells = vec![0.0_f32; filters * CELLS * CELLS * 4 * channels];
    for (filter, cells) in cells.chunks_exact_mut(CELLS * CELLS * 4 * channels).enumerate() {
        for tap in 0..TAPS * TAPS {
            let (y, x) = (tap / TAPS + 1, tap % TAPS + 1);
            let cell = y / 2 * CELLS + x / 2;
            let to = &mut cells[(cell * 4 + y % 2 * 2 + x % 2) * channels..][..channels];
            let weight = |channel: usize| stem.weights[(filter * 3 + channel) * TAPS * TAPS + tap];
            if colours == 1 {
                for channel in 0..3 {
                    let weight = weight(channel) / IMAGENET_STD[channel];
                    to[0] += weight * GREY_STD;
                    to[1] += weight * (GREY_MEAN - IMAGENET_MEAN[channel]);
                }
            } else {
                to[..3].copy_from_slice(&[weight(0), weight(1), weight(2)]);
            }
        }
    }
    Tensor::from_vec(cells, (filters, CELLS, CELLS, 4 * channels), &Device::Cpu)?
        .to_dtype(DType::F16)?
        .to_device(device)
}

fn cells(images: &Layout) -> Result<(usize, usize, usize, Shape)> {
    let (count, side, _, colours) = images.shape().dims4()?;
    let along = side / 2 + CELLS - 1;
    Ok((count, side, colours, (count, along, along, 4 * pixel_channels(colours)).into()))
}

impl CustomOp1 for StemCells {
    fn name(&self) -> &'static str {
        "stem cells"
    }

    fn cpu_fwd(&self, images: &CpuStorage, of_images: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, side, colours, shape) = cells(of_images)?;
        let (images, (rates, offsets)) = (on_cpu::<f32>(images, of_images)?, normalisation(colours));
        let (along, channels) = (shape.dims()[1], pixel_channels(colours));
        let value = |at: usize| {
            let (channel, pixel, cell) = (at % channels, at / channels % 4, at / channels / 4);
            let (image, cell_y, cell_x) = (cell / along / along, cell / along % along, cell % along);
            let inside = |cell: usize, pixel: usize| (2 * cell + pixel).checked_sub(4).filter(|at| *at < side);
            let (Some(y), Some(x)) = (inside(cell_y, pixel / 2), inside(cell_x, pixel % 2)) else { return 0.0 };
            match channel {
                channel if channel < colours => {
                    images[((image * side + y) * side + x) * colours + channel] * rates[channel] + offsets[channel]
                }
                _ if colours == 1 => 1.0,
                _ => 0.0,
            }
        };
        let cells = (0..shape.elem_count()).map(|at| f16::from_f32(value(at))).collect();
        Ok((CpuStorage::F16(cells), shape))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        images: &candle_core::CudaStorage,
        of_images: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use gpu::PassKernel;

        use super::on_gpu::{place, written};

        let (count, side, colours, shape) = cells(of_images)?;
        let (rates, offsets) = normalisation(colours);
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<f16>(&images.device, shape, |cells, stream| {
                let (images, _images) = place::<f32>(images, of_images, stream)?;
                // SAFETY: the images are as their layout says, and there is room for all cells.
                self.kernels.launch(&PassKernel::stem_cells(images, cells, [count, side, colours], rates, offsets))
            })
        }
    }
}
