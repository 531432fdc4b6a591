use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};
use half::bf16;
use rayon::prelude::*;

use super::{floats, on_cpu};

/// A convolution of (N, H, W, in) with filters (out, kernel, kernel, in), added up in 32-bit floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolve {
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// What a convolution has to do.
#[derive(Clone, Copy, Debug)]
struct Extent {
    images: usize,
    side: usize,
    channels: usize,
    kernel: usize,
    out_channels: usize,
    out_side: usize,
}

impl Convolve {
    fn extent(self, input: &Layout, filters: &Layout) -> Result<Extent> {
        let (images, side, _, channels) = input.shape().dims4()?;
        let (out_channels, kernel, _, _) = filters.shape().dims4()?;
        let out_side = (side + 2 * self.padding - kernel) / self.stride + 1;
        Ok(Extent { images, side, channels, kernel, out_channels, out_side })
    }
}

impl Extent {
    fn output(self) -> Shape {
        (self.images, self.out_side, self.out_side, self.out_channels).into()
    }
}

impl CustomOp2 for Convolve {
    fn name(&self) -> &'static str {
        "convolve"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        of_input: &Layout,
        filters: &CpuStorage,
        of_filters: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(of_input, of_filters)?;
        let Extent { images, side, channels, kernel, out_channels, out_side } = extent;
        let (input, filters) = (floats(on_cpu(input, of_input)?), floats(on_cpu(filters, of_filters)?));
        let mut output = vec![bf16::ZERO; images * out_side * out_side * out_channels];
        output.par_chunks_exact_mut(out_channels).enumerate().for_each(|(pixel, sums)| {
            let (image, y, x) = (pixel / out_side / out_side, pixel / out_side % out_side, pixel % out_side);
            for (sum, filter) in sums.iter_mut().zip(filters.chunks_exact(kernel * kernel * channels)) {
                let mut total = 0.0;
                for (tap, weights) in filter.chunks_exact(channels).enumerate() {
                    let inside = |at: usize, tap: usize| (at * self.stride + tap).checked_sub(self.padding);
                    let (Some(y), Some(x)) = (inside(y, tap / kernel), inside(x, tap % kernel)) else { continue };
                    if y < side && x < side {
                        let values = &input[((image * side + y) * side + x) * channels..][..channels];
                        total += dot(values, weights);
                    }
                }
                *sum = bf16::from_f32(total);
            }
        });
        Ok((CpuStorage::BF16(output), extent.output()))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        of_input: &Layout,
        filters: &candle_core::CudaStorage,
        of_filters: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let extent = self.extent(of_input, of_filters)?;
        let output = on_gpu::convolve(*self, extent, (input, of_input), (filters, of_filters))?;
        Ok((output, extent.output()))
    }
}

/// In eight sums, so that the compiler takes them at once.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (one, other) in one.chunks(8).zip(other.chunks(8)) {
        sums.iter_mut().zip(one.iter().zip(other)).for_each(|(sum, (one, other))| *sum += one * other);
    }
    sums.iter().sum()
}

#[cfg(feature = "cudnn")]
mod on_gpu {
    use std::{cell::RefCell, collections::HashMap, sync::Arc};

    use candle_core::{
        CudaDevice, CudaStorage, Error, Layout, Result,
        cuda_backend::{
            CudaDType as _, DeviceId,
            cudarc::{
                cudnn::{
                    ConvForward, Cudnn,
                    sys::{cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t::CUDNN_TENSOR_NHWC},
                },
                driver::CudaSlice,
            },
        },
    };
    use half::bf16;

    use super::{Convolve, Extent};

    thread_local! {
        /// A handle serves one thread at a time.
        static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    }

    fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
        HANDLES.with_borrow_mut(|handles| {
            if let Some(handle) = handles.get(&device.id()) {
                return Ok(Arc::clone(handle));
            }
            let handle = Cudnn::new(device.cuda_stream()).map_err(Error::wrap)?;
            handles.insert(device.id(), Arc::clone(&handle));
            Ok(handle)
        })
    }

    pub(super) fn convolve(
        Convolve { stride, padding }: Convolve,
        extent: Extent,
        (input, of_input): (&CudaStorage, &Layout),
        (filters, of_filters): (&CudaStorage, &Layout),
    ) -> Result<CudaStorage> {
        let device = &input.device;
        let is_whole = |layout: &Layout| layout.is_contiguous() && layout.start_offset() == 0;
        if !is_whole(of_input) || !is_whole(of_filters) {
            candle_core::bail!("the activations do not lie one behind the other");
        }
        let dims = |dims: [usize; 4]| dims.map(|dim| dim as i32);
        let Extent { images, side, channels, kernel, out_channels, out_side } = extent;
        let cudnn = handle(device)?;
        let work = || {
            let mut conv = cudnn.create_conv2d::<f32>(
                [padding as i32; 2],
                [stride as i32; 2],
                [1; 2],
                cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
            )?;
            conv.set_math_type(cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?;
            let x = cudnn.create_4d_tensor::<bf16>(CUDNN_TENSOR_NHWC, dims([images, channels, side, side]))?;
            let w =
                cudnn.create_4d_filter::<bf16>(CUDNN_TENSOR_NHWC, dims([out_channels, channels, kernel, kernel]))?;
            let y =
                cudnn.create_4d_tensor::<bf16>(CUDNN_TENSOR_NHWC, dims([images, out_channels, out_side, out_side]))?;
            let forward = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
            let algorithm = forward.pick_algorithm()?;
            let bytes = forward.get_workspace_size(algorithm)?;
            Ok((conv, x, w, y, algorithm, bytes))
        };
        let (conv, x, w, y, algorithm, bytes) =
            work().map_err(|error: candle_core::cuda_backend::cudarc::cudnn::CudnnError| Error::wrap(error))?;
        // SAFETY: cuDNN writes what it reads of its own memory, and all of the output.
        let mut workspace: CudaSlice<u8> = unsafe { device.alloc(bytes.max(1)) }?;
        // SAFETY: as above.
        let mut output: CudaSlice<bf16> = unsafe { device.alloc(images * out_side * out_side * out_channels) }?;
        let forward = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
        // SAFETY: all memory is as large as its description says.
        unsafe {
            forward.launch(
                algorithm,
                Some(&mut workspace),
                (bf16::ONE, bf16::ZERO),
                input.as_cuda_slice::<bf16>()?,
                filters.as_cuda_slice::<bf16>()?,
                &mut output,
            )
        }
        .map_err(Error::wrap)?;
        Ok(bf16::wrap_cuda_slice(output, device.clone()))
    }
}
