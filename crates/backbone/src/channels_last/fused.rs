use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{
    convolve::{Convolve, floats, rounded},
    cpu_storage,
};

/// A convolution of (N, H, W, in) in bfloat16 with filters (out, kernel, kernel, in), + a shortcut as its sums where there is one, + a
/// bias, then ReLU if there is one; rounded once, in the end.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    pub(super) convolve: Convolve,
    pub(super) filters: Tensor,
    /// (out), in the filters' precision.
    pub(super) bias: Tensor,
    pub(super) relu: bool,
}

impl Fused {
    fn on_cpu(
        &self,
        (input, of_input): (&CpuStorage, &Layout),
        shortcut: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let (filters, of_filters) = self.filters.storage_and_layout();
        let extent = self.convolve.extent(of_input, of_filters)?;
        let filters = floats(cpu_storage(&filters)?, of_filters)?;
        let mut sums = self.convolve.sums(extent, &floats(input, of_input)?, &filters);
        if let Some((shortcut, of_shortcut)) = shortcut {
            sums.iter_mut().zip(floats(shortcut, of_shortcut)?).for_each(|(sum, shortcut)| *sum += shortcut);
        }
        let bias = self.bias.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        for sums in sums.chunks_exact_mut(bias.len()) {
            sums.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
        }
        if self.relu {
            // What is no number stays.
            sums.iter_mut().filter(|sum| **sum < 0.0).for_each(|sum| *sum = 0.0);
        }
        Ok((rounded(sums, input), extent.output()))
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "fused convolution"
    }

    fn cpu_fwd(&self, input: &CpuStorage, of_input: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((input, of_input), None)
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        of_input: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cudnn::run(self, (input, of_input), None)
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "fused convolution with a shortcut"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        of_input: &Layout,
        shortcut: &CpuStorage,
        of_shortcut: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu((input, of_input), Some((shortcut, of_shortcut)))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        of_input: &Layout,
        shortcut: &candle_core::CudaStorage,
        of_shortcut: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cudnn::run(self, (input, of_input), Some((shortcut, of_shortcut)))
    }
}
