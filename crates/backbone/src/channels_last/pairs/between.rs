//! What stands between the convolutions.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{
    parts::{OF_ACTIVATIONS, PARTS, joined, taken_apart},
    stem_channels,
};
use crate::{
    channels_last::{
        Kernels, on_cpu,
        stem::{Normalise, POOLED_SIDE, SUM_SIDE, pooled},
    },
    network::STEM_CHANNELS,
    preprocess::IMAGE_SIDE,
};

/// Images (N, 224, 224, 1 or 3) in 32-bit floats, normalised, as pairs, and as many zeros behind them: (N, 224, 224, 4 or 12).
#[derive(Debug)]
pub(super) struct Split {
    pub(super) normalise: Normalise,
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

/// The stem's sums (N, 112, 112, 64) + their biases, ReLU and the max-pool, as pairs (N, 56, 56, 3 · 64).
#[derive(Debug)]
pub(super) struct Pool {
    /// (5, 5, 64), by where the filter stands.
    pub(super) biases: Tensor,
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

/// Sums (N, H, W, C) + a bias (+ a shortcut in pairs), then ReLU if there is one, as pairs.
#[derive(Debug)]
pub(super) struct Finish {
    /// (C).
    pub(super) bias: Tensor,
    pub(super) relu: bool,
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

/// What pairs (N, H, W, 3 C) are those of, (N, H, W, C).
#[derive(Debug)]
pub(super) struct Join {
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

impl Split {
    fn shape(&self, images: &Layout) -> Result<Shape> {
        let count = self.normalise.count(images)?;
        Ok((count, IMAGE_SIDE, IMAGE_SIDE, stem_channels(self.normalise.colours)).into())
    }
}

impl Pool {
    fn shape(sums: &Layout) -> Result<Shape> {
        let (count, height, width, channels) = sums.shape().dims4()?;
        if [height, width, channels] != [SUM_SIDE, SUM_SIDE, STEM_CHANNELS] {
            candle_core::bail!("the stem's sums are {height} by {width} pixels of {channels} channels");
        }
        Ok((count, POOLED_SIDE, POOLED_SIDE, PARTS * channels).into())
    }
}

impl Finish {
    fn on_cpu(&self, sums: &[f32], shortcut: Option<&[f32]>) -> Result<Vec<f32>> {
        let bias = self.bias.to_vec1::<f32>()?;
        let value = |(at, sum): (usize, &f32)| {
            let value = sum + bias[at % bias.len()] + shortcut.map_or(0.0, |shortcut| shortcut[at]);
            if self.relu && value < 0.0 { 0.0 } else { value }
        };
        let values: Vec<f32> = sums.iter().enumerate().map(value).collect();
        Ok(taken_apart(&values, bias.len(), PARTS * bias.len(), OF_ACTIVATIONS))
    }
}

/// The shape of pairs of values of this shape, (N, H, W, C).
fn shape_of_pairs(shape: &Shape) -> Result<Shape> {
    let (images, height, width, channels) = shape.dims4()?;
    Ok((images, height, width, PARTS * channels).into())
}

/// The shape of values in pairs of this shape.
fn shape_of_values(shape: &Shape) -> Result<Shape> {
    let (images, height, width, channels) = shape.dims4()?;
    Ok((images, height, width, channels / PARTS).into())
}

impl CustomOp1 for Split {
    fn name(&self) -> &'static str {
        "images in pairs"
    }

    fn cpu_fwd(&self, images: &CpuStorage, of_images: &Layout) -> Result<(CpuStorage, Shape)> {
        let (pixels, colours) = (self.normalise.pixels(on_cpu::<f32>(images, of_images)?), self.normalise.colours);
        let split = taken_apart(&pixels, colours, stem_channels(colours), OF_ACTIVATIONS);
        Ok((CpuStorage::F32(split), self.shape(of_images)?))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        images: &candle_core::CudaStorage,
        of_images: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::split(self, images, of_images)
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "max-pool in pairs"
    }

    fn cpu_fwd(&self, sums: &CpuStorage, of_sums: &Layout) -> Result<(CpuStorage, Shape)> {
        let biases = self.biases.flatten_all()?.to_vec1::<f32>()?;
        let pooled = pooled(on_cpu::<f32>(sums, of_sums)?, &biases);
        let pairs = taken_apart(&pooled, STEM_CHANNELS, PARTS * STEM_CHANNELS, OF_ACTIVATIONS);
        Ok((CpuStorage::F32(pairs), Self::shape(of_sums)?))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, sums: &candle_core::CudaStorage, of_sums: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::pool(self, sums, of_sums)
    }
}

impl CustomOp1 for Finish {
    fn name(&self) -> &'static str {
        "finish in pairs"
    }

    fn cpu_fwd(&self, sums: &CpuStorage, of_sums: &Layout) -> Result<(CpuStorage, Shape)> {
        let pairs = self.on_cpu(on_cpu::<f32>(sums, of_sums)?, None)?;
        Ok((CpuStorage::F32(pairs), shape_of_pairs(of_sums.shape())?))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, sums: &candle_core::CudaStorage, of_sums: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::finish(self, (sums, of_sums), None)
    }
}

impl CustomOp2 for Finish {
    fn name(&self) -> &'static str {
        "finish in pairs with a shortcut"
    }

    fn cpu_fwd(
        &self,
        sums: &CpuStorage,
        of_sums: &Layout,
        shortcut: &CpuStorage,
        of_shortcut: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shortcut = joined(on_cpu::<f32>(shortcut, of_shortcut)?, of_sums.dims()[3]);
        let pairs = self.on_cpu(on_cpu::<f32>(sums, of_sums)?, Some(&shortcut))?;
        Ok((CpuStorage::F32(pairs), shape_of_pairs(of_sums.shape())?))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        sums: &candle_core::CudaStorage,
        of_sums: &Layout,
        shortcut: &candle_core::CudaStorage,
        of_shortcut: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::finish(self, (sums, of_sums), Some((shortcut, of_shortcut)))
    }
}

impl CustomOp1 for Join {
    fn name(&self) -> &'static str {
        "values of pairs"
    }

    fn cpu_fwd(&self, pairs: &CpuStorage, of_pairs: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = shape_of_values(of_pairs.shape())?;
        Ok((CpuStorage::F32(joined(on_cpu::<f32>(pairs, of_pairs)?, shape.dims()[3])), shape))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        pairs: &candle_core::CudaStorage,
        of_pairs: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::join(self, pairs, of_pairs)
    }
}

#[cfg(feature = "cudnn")]
mod on_gpu {
    use candle_core::{CudaStorage, Layout, Result, Shape};
    use gpu::PassKernel;

    use super::{Finish, Join, Normalise, Pool, Split, shape_of_pairs, shape_of_values};
    use crate::channels_last::on_gpu::{check_like, place, place_of, written};

    pub(super) fn split(split: &Split, images: &CudaStorage, of_images: &Layout) -> Result<(CudaStorage, Shape)> {
        let Split { normalise: Normalise { colours, rates, offsets }, kernels } = split;
        let pixels = of_images.shape().elem_count() / colours;
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<f32>(&images.device, split.shape(of_images)?, |out, stream| {
                let (images, _images) = place::<f32>(images, of_images, stream)?;
                // SAFETY: images and output are as their layouts say.
                kernels.launch(&PassKernel::split([images, out], pixels, *colours, *rates, *offsets))
            })
        }
    }

    pub(super) fn pool(pool: &Pool, sums: &CudaStorage, of_sums: &Layout) -> Result<(CudaStorage, Shape)> {
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<f32>(&sums.device, Pool::shape(of_sums)?, |out, stream| {
                let (sums, _sums) = place::<f32>(sums, of_sums, stream)?;
                let biases = pool.biases.storage_and_layout();
                let (biases, _biases) = place_of::<f32>(&biases, stream)?;
                // SAFETY: sums and output are as their layouts say, and so are the biases.
                pool.kernels.launch(&PassKernel::pool([sums, biases, out], of_sums.dims()[0]))
            })
        }
    }

    pub(super) fn finish(
        finish: &Finish,
        (sums, of_sums): (&CudaStorage, &Layout),
        shortcut: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let (count, channels, pairs) =
            (of_sums.shape().elem_count(), of_sums.dims()[3], shape_of_pairs(of_sums.shape())?);
        check_like(&pairs, shortcut)?;
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<f32>(&sums.device, pairs, |out, stream| {
                let (sums, _sums) = place::<f32>(sums, of_sums, stream)?;
                let bias = finish.bias.storage_and_layout();
                let (bias, _bias) = place_of::<f32>(&bias, stream)?;
                let shortcut = shortcut.map(|(shortcut, of)| place::<f32>(shortcut, of, stream)).transpose()?;
                let places = [sums, bias, shortcut.as_ref().map_or(0, |(shortcut, _)| *shortcut), out];
                // SAFETY: output and shortcut are pairs of as many values as there are sums; there is a bias for each channel.
                finish.kernels.launch(&PassKernel::finish_pairs(places, count, channels, finish.relu))
            })
        }
    }

    pub(super) fn join(join: &Join, pairs: &CudaStorage, of_pairs: &Layout) -> Result<(CudaStorage, Shape)> {
        let shape = shape_of_values(of_pairs.shape())?;
        let (count, channels) = (shape.elem_count(), shape.dims()[3]);
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<f32>(&pairs.device, shape, |out, stream| {
                let (pairs, _pairs) = place::<f32>(pairs, of_pairs, stream)?;
                // SAFETY: there are pairs of as many values.
                join.kernels.launch(&PassKernel::join_pairs([pairs, out], count, channels))
            })
        }
    }
}
