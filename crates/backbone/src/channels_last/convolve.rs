#[cfg(feature = "cudnn")]
use candle_core::DType;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};
use half::bf16;
use rayon::prelude::*;

use super::on_cpu;

/// A convolution of (N, H, W, in) with filters (out, kernel, kernel, in), both in 32-bit floats or bfloat16; added up in 32-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Convolve {
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// What a convolution has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Extent {
    pub(super) images: usize,
    pub(super) side: usize,
    pub(super) channels: usize,
    pub(super) kernel: usize,
    pub(super) out_channels: usize,
    pub(super) out_side: usize,
}

impl Convolve {
    pub(super) fn extent(self, input: &Layout, filters: &Layout) -> Result<Extent> {
        let (images, side, _, channels) = input.shape().dims4()?;
        let (out_channels, kernel, _, _) = filters.shape().dims4()?;
        let out_side = (side + 2 * self.padding - kernel) / self.stride + 1;
        Ok(Extent { images, side, channels, kernel, out_channels, out_side })
    }

    /// The sums on the CPU.
    pub(super) fn sums(self, extent: Extent, input: &[f32], filters: &[f32]) -> Vec<f32> {
        let Extent { side, channels, kernel, out_channels, out_side, .. } = extent;
        let mut output = vec![0.0; extent.outputs()];
        output.par_chunks_exact_mut(out_channels).enumerate().for_each(|(pixel, sums)| {
            let (image, y, x) = (pixel / out_side / out_side, pixel / out_side % out_side, pixel % out_side);
            for (sum, filter) in sums.iter_mut().zip(filters.chunks_exact(kernel * kernel * channels)) {
                for (tap, weights) in filter.chunks_exact(channels).enumerate() {
                    let inside = |at: usize, tap: usize| (at * self.stride + tap).checked_sub(self.padding);
                    let (Some(y), Some(x)) = (inside(y, tap / kernel), inside(x, tap % kernel)) else { continue };
                    if y < side && x < side {
                        let values = &input[((image * side + y) * side + x) * channels..][..channels];
                        *sum += dot(values, weights);
                    }
                }
            }
        });
        output
    }
}

impl Extent {
    pub(super) fn output(self) -> Shape {
        (self.images, self.out_side, self.out_side, self.out_channels).into()
    }

    const fn outputs(self) -> usize {
        self.images * self.out_side * self.out_side * self.out_channels
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
        let sums = self.sums(extent, &floats(input, of_input)?, &floats(filters, of_filters)?);
        Ok((rounded(sums, input), extent.output()))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        of_input: &Layout,
        filters: &candle_core::CudaStorage,
        of_filters: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage as _;

        let extent = self.extent(of_input, of_filters)?;
        super::on_gpu::check_whole(of_input)?;
        super::on_gpu::check_whole(of_filters)?;
        let output = match input.dtype() {
            DType::F32 => on_gpu::convolve::<f32>(*self, extent, input, filters)?,
            _ => on_gpu::convolve::<bf16>(*self, extent, input, filters)?,
        };
        Ok((output, extent.output()))
    }
}

/// The values of a tensor of the CPU.
pub(super) fn floats(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f32>> {
    match storage {
        CpuStorage::F32(_) => on_cpu::<f32>(storage, layout).map(<[f32]>::to_vec),
        _ => on_cpu::<bf16>(storage, layout).map(|halves| halves.iter().map(|value| value.to_f32()).collect()),
    }
}

/// `values` in the precision of `like`.
pub(super) fn rounded(values: Vec<f32>, like: &CpuStorage) -> CpuStorage {
    match like {
        CpuStorage::F32(_) => CpuStorage::F32(values),
        _ => CpuStorage::BF16(values.into_iter().map(bf16::from_f32).collect()),
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
    use std::{any::Any, cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

    use candle_core::{
        CudaDevice, CudaStorage, DType, Error, Result, WithDType,
        cuda_backend::{
            CudaDType, DeviceId,
            cudarc::{
                cudnn::{
                    ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError, FilterDescriptor, TensorDescriptor,
                    sys::{
                        cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t, cudnnMathType_t,
                        cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
                    },
                },
                driver::{CudaSlice, DeviceRepr},
            },
        },
    };

    use super::{Convolve, Extent};

    /// How cuDNN goes about a convolution. Finding that out takes it longer than computing a batch.
    struct Plan<T> {
        conv: ConvDescriptor<f32>,
        x: TensorDescriptor<T>,
        w: FilterDescriptor<T>,
        y: TensorDescriptor<T>,
        algorithm: cudnnConvolutionFwdAlgo_t,
        workspace_bytes: usize,
    }

    type Key = (DeviceId, DType, Convolve, Extent);

    // A handle, and what was made with it, serves one thread at a time.
    thread_local! {
        static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
        static PLANS: RefCell<HashMap<Key, Rc<dyn Any>>> = RefCell::default();
    }

    fn handle(device: &CudaDevice) -> std::result::Result<Arc<Cudnn>, CudnnError> {
        HANDLES.with_borrow_mut(|handles| {
            if let Some(handle) = handles.get(&device.id()) {
                return Ok(Arc::clone(handle));
            }
            let handle = Cudnn::new(device.cuda_stream())?;
            handles.insert(device.id(), Arc::clone(&handle));
            Ok(handle)
        })
    }

    fn plan<T: CudnnDataType + WithDType>(
        convolve: Convolve,
        extent: Extent,
        device: &CudaDevice,
    ) -> std::result::Result<Rc<Plan<T>>, CudnnError> {
        let key = (device.id(), T::DTYPE, convolve, extent);
        let known = PLANS.with_borrow(|plans| plans.get(&key).cloned()).and_then(|plan| plan.downcast().ok());
        if let Some(plan) = known {
            return Ok(plan);
        }
        let (cudnn, dims) = (handle(device)?, |dims: [usize; 4]| dims.map(|dim| dim as i32));
        let Extent { images, side, channels, kernel, out_channels, out_side } = extent;
        let mut conv = cudnn.create_conv2d::<f32>(
            [convolve.padding as i32; 2],
            [convolve.stride as i32; 2],
            [1; 2],
            cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
        )?;
        // Left to itself cuDNN would round 32-bit floats to TF32's ten bits.
        conv.set_math_type(match T::DTYPE {
            DType::F32 => cudnnMathType_t::CUDNN_FMA_MATH,
            _ => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        })?;
        let x = cudnn.create_4d_tensor::<T>(CUDNN_TENSOR_NHWC, dims([images, channels, side, side]))?;
        let w = cudnn.create_4d_filter::<T>(CUDNN_TENSOR_NHWC, dims([out_channels, channels, kernel, kernel]))?;
        let y = cudnn.create_4d_tensor::<T>(CUDNN_TENSOR_NHWC, dims([images, out_channels, out_side, out_side]))?;
        let forward = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
        let algorithm = forward.pick_algorithm()?;
        let workspace_bytes = forward.get_workspace_size(algorithm)?;
        let plan = Rc::new(Plan { conv, x, w, y, algorithm, workspace_bytes });
        PLANS.with_borrow_mut(|plans| plans.insert(key, Rc::clone(&plan) as Rc<dyn Any>));
        Ok(plan)
    }

    pub(super) fn convolve<T: CudnnDataType + CudaDType + DeviceRepr + WithDType>(
        convolve: Convolve,
        extent: Extent,
        input: &CudaStorage,
        filters: &CudaStorage,
    ) -> Result<CudaStorage> {
        let device = &input.device;
        let plan = plan::<T>(convolve, extent, device).map_err(Error::wrap)?;
        let Plan { conv, x, w, y, algorithm, workspace_bytes } = &*plan;
        // SAFETY: cuDNN reads of it only what it wrote.
        let mut workspace: CudaSlice<u8> = unsafe { device.alloc((*workspace_bytes).max(1)) }?;
        // SAFETY: cuDNN writes all of it.
        let mut output: CudaSlice<T> = unsafe { device.alloc(extent.outputs()) }?;
        let (input, filters) = (input.as_cuda_slice::<T>()?, filters.as_cuda_slice::<T>()?);
        let forward = ConvForward { conv, x, w, y };
        // SAFETY: all memory is as large as its description says.
        unsafe { forward.launch(*algorithm, Some(&mut workspace), (T::one(), T::zero()), input, filters, &mut output) }
            .map_err(Error::wrap)?;
        Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
    }
}
