use std::{collections::HashMap, sync::Arc};

use cudarc::{
    driver::{CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg as _, result},
    nvrtc::{CompileOptions, compile_ptx_with_opts},
};

use crate::{Argument, Constants, GpuError, Machine, Memory, source::SOURCE};

/// An NVIDIA GPU with the kernels of one model.
#[derive(Debug)]
pub struct Card {
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Card {
    /// Compiles the kernels for a model of `constants` and for the GPU of `stream`.
    ///
    /// # Errors
    /// If they cannot be compiled.
    pub fn new(stream: Arc<CudaStream>, constants: &Constants) -> Result<Self, GpuError> {
        let context = stream.context();
        let (major, minor) = context.compute_capability().map_err(|error| failed("a question about itself", error))?;
        let what = format!("compute capability {major}.{minor}");
        let compiler = |reason: String| GpuError::Compiler { what: what.clone(), reason };
        let mut options = constants.options();
        options.extend(["--std=c++17".to_owned(), format!("--gpu-architecture=compute_{major}{minor}")]);
        let options = CompileOptions { options, ..CompileOptions::default() };
        let ptx = compile_ptx_with_opts(SOURCE, options).map_err(|error| compiler(format!("{error:?}")))?;
        let module: Arc<CudaModule> = context.load_module(ptx).map_err(|error| compiler(error.to_string()))?;
        let function = |name: &&'static str| Ok((*name, module.load_function(name)?));
        let functions = crate::calls::KERNELS.iter().map(function).collect::<Result<_, DriverError>>();
        Ok(Self { functions: functions.map_err(|error| compiler(error.to_string()))?, stream })
    }
}

impl Machine for Card {
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        use cudarc::driver::DevicePtr as _;
        let slice = self.stream.alloc_zeros::<u8>(bytes);
        let slice = slice.map_err(|error| GpuError::Memory { bytes, reason: error.to_string() })?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Memory { address, bytes, _owner: Box::new(slice) })
    }

    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError> {
        let to = memory.place(at, from.len());
        // SAFETY: the place is within the memory; `from` lives until the copy is done, which is waited for.
        let copied = self
            .stream
            .context()
            .bind_to_thread()
            .and_then(|()| unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) });
        copied.and_then(|()| self.stream.synchronize()).map_err(|error| failed("a copy to it", error))
    }

    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError> {
        let from = memory.place(at, to.len());
        // SAFETY: the place is within the memory; `to` lives until the copy is done, which is waited for.
        let copied = self
            .stream
            .context()
            .bind_to_thread()
            .and_then(|()| unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) });
        copied.and_then(|()| self.stream.synchronize()).map_err(|error| failed("a copy from it", error))
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), GpuError> {
        let missing = || GpuError::Failed { what: kernel.to_owned(), reason: "there is no such kernel".to_owned() };
        let function = self.functions.get(kernel).ok_or_else(missing)?;
        let mut launch = self.stream.launch_builder(function);
        for argument in arguments {
            match argument {
                Argument::Address(value) => launch.arg(value),
                Argument::Long(value) => launch.arg(value),
                Argument::Int(value) => launch.arg(value),
                Argument::Float(value) => launch.arg(value),
            };
        }
        let [x, y, z] = grid.map(|blocks| blocks as u32);
        let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (threads as u32, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: what the kernel is given is the caller's to vouch for.
        unsafe { launch.launch(config) }.map(|_| ()).map_err(|error| failed(kernel, error))
    }
}

fn failed(what: &str, error: DriverError) -> GpuError {
    GpuError::Failed { what: what.to_owned(), reason: error.to_string() }
}
