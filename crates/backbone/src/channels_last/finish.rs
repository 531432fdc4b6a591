use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape};
use half::bf16;

use super::{Kernels, on_cpu};

/// A convolution's sums (N, H, W, C) + its bias (C) (+ a shortcut as the sums), then ReLU if there is one.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    pub(super) relu: bool,
    #[cfg_attr(not(feature = "cudnn"), expect(dead_code, reason = "the CPU's twin is here"))]
    pub(super) kernels: Kernels,
}

impl Finish {
    fn on_cpu(
        &self,
        (sums, of_sums): (&CpuStorage, &Layout),
        (bias, of_bias): (&CpuStorage, &Layout),
        shortcut: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let (sums, bias) = (on_cpu::<bf16>(sums, of_sums)?, on_cpu::<f32>(bias, of_bias)?);
        let shortcut = shortcut.map(|(shortcut, of)| on_cpu::<bf16>(shortcut, of)).transpose()?;
        let value = |(at, sum): (usize, &bf16)| {
            let value = sum.to_f32() + bias[at % bias.len()] + shortcut.map_or(0.0, |shortcut| shortcut[at].to_f32());
            bf16::from_f32(if self.relu && value < 0.0 { 0.0 } else { value })
        };
        let finished = sums.iter().enumerate().map(value).collect();
        Ok((CpuStorage::BF16(finished), of_sums.shape().clone()))
    }
}

impl CustomOp2 for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    fn cpu_fwd(
        &self,
        sums: &CpuStorage,
        of_sums: &Layout,
        bias: &CpuStorage,
        of_bias: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((sums, of_sums), (bias, of_bias), None)
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        sums: &candle_core::CudaStorage,
        of_sums: &Layout,
        bias: &candle_core::CudaStorage,
        of_bias: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::finish(self, (sums, of_sums), (bias, of_bias), None)
    }
}

impl CustomOp3 for Finish {
    fn name(&self) -> &'static str {
        "finish with a shortcut"
    }

    fn cpu_fwd(
        &self,
        sums: &CpuStorage,
        of_sums: &Layout,
        bias: &CpuStorage,
        of_bias: &Layout,
        shortcut: &CpuStorage,
        of_shortcut: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((sums, of_sums), (bias, of_bias), Some((shortcut, of_shortcut)))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        sums: &candle_core::CudaStorage,
        of_sums: &Layout,
        bias: &candle_core::CudaStorage,
        of_bias: &Layout,
        shortcut: &candle_core::CudaStorage,
        of_shortcut: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_gpu::finish(self, (sums, of_sums), (bias, of_bias), Some((shortcut, of_shortcut)))
    }
}

#[cfg(feature = "cudnn")]
mod on_gpu {
    use candle_core::{CudaStorage, Layout, Result, Shape};
    use gpu::PassKernel;
    use half::bf16;

    use super::Finish;
    use crate::channels_last::on_gpu::{check_like, place, written};

    pub(super) fn finish(
        Finish { relu, kernels }: &Finish,
        (sums, of_sums): (&CudaStorage, &Layout),
        (bias, of_bias): (&CudaStorage, &Layout),
        shortcut: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let (shape, count, channels) = (of_sums.shape(), of_sums.shape().elem_count(), of_sums.dims()[3]);
        check_like(shape, shortcut)?;
        // SAFETY: the kernel writes all of it.
        unsafe {
            written::<bf16>(&sums.device, shape.clone(), |out, stream| {
                let (sums, _sums) = place::<bf16>(sums, of_sums, stream)?;
                let (bias, _bias) = place::<f32>(bias, of_bias, stream)?;
                let shortcut = shortcut.map(|(shortcut, of)| place::<bf16>(shortcut, of, stream)).transpose()?;
                let places = [sums, bias, shortcut.as_ref().map_or(0, |(shortcut, _)| *shortcut), out];
                // SAFETY: the output is as large as the sums, and so is the shortcut; there is a bias for each channel.
                kernels.launch(&PassKernel::finish(places, count, channels, *relu))
            })
        }
    }
}
