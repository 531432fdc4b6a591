use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaGraph, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg as _,
        sys::{CUgraphInstantiate_flags, CUstreamCaptureMode},
    },
    nvrtc::Ptx,
};
use stage::warn_once;

use crate::{
    Argument, GpuError, Machine, Memory, Program, Recording,
    copies::{Bus as _, Copies, SLOT_BYTES, copy},
    kept_code::KeptCode,
    nvrtc,
    stream::{Stream, failed, no_memory},
};

/// The kernels of a module by name.
type Functions = Arc<HashMap<&'static str, CudaFunction>>;

/// What has been compiled, for each GPU by its number: compiling takes seconds, and a study asks for the same again and again.
static COMPILED: Mutex<Vec<(usize, Program, Functions)>> = Mutex::new(Vec::new());

/// An NVIDIA GPU with the kernels of one model.
#[derive(Debug)]
pub struct Card {
    stream: Arc<CudaStream>,
    copies: Copies<Stream>,
    functions: Functions,
}

impl Card {
    /// With the kernels of `program`, on a stream of their own beside `stream`: the driver takes none down on that of all.
    ///
    /// # Errors
    /// If they cannot be compiled.
    pub fn new(stream: &CudaStream, program: &Program) -> Result<Self, GpuError> {
        let stream = stream.context().new_stream().map_err(|error| failed("a stream", error))?;
        Self::on(stream, program)
    }

    /// With the kernels of `program`, on `stream`, beside what others ask of it.
    ///
    /// # Errors
    /// If they cannot be compiled.
    pub fn on(stream: Arc<CudaStream>, program: &Program) -> Result<Self, GpuError> {
        let context = stream.context();
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = compiled.iter().find(|(ordinal, of, _)| *ordinal == context.ordinal() && of == program);
        let functions = match known.map(|(.., functions)| Arc::clone(functions)) {
            Some(functions) => functions,
            None => {
                let functions = compile(context, program)?;
                compiled.push((context.ordinal(), program.clone(), Arc::clone(&functions)));
                functions
            }
        };
        Ok(Self::with(stream, functions))
    }

    fn with(stream: Arc<CudaStream>, functions: Functions) -> Self {
        Self { copies: Copies::new(Stream(Arc::clone(&stream))), stream, functions }
    }
}

/// The kernels of `program` for the GPU of `context`: as they were kept, or compiled.
fn compile(context: &Arc<CudaContext>, program: &Program) -> Result<Functions, GpuError> {
    let (major, minor) = context.compute_capability().map_err(|error| failed("a question about itself", error))?;
    program.check_capability((major, minor))?;
    let what = format!("compute capability {major}.{minor}");
    let compiler = |reason: String| GpuError::Compiler { what: what.clone(), reason };
    let load = |code: Vec<u8>| -> Result<Functions, DriverError> {
        let module: Arc<CudaModule> = context.load_module(Ptx::from_binary(code))?;
        let function = |name: &&'static str| Ok((*name, module.load_function(name)?));
        Ok(Arc::new(program.kernels.iter().map(function).collect::<Result<_, DriverError>>()?))
    };
    let options = nvrtc::options(program, (major, minor));
    let version = nvrtc::version().map_err(|error| compiler(format!("{error:?}")))?;
    let kept = KeptCode::of([program.source, &version].into_iter().chain(options.iter().map(String::as_str)));
    if let Some(functions) = kept.as_ref().and_then(KeptCode::read).and_then(|code| load(code).ok()) {
        return Ok(functions);
    }
    let code = nvrtc::compile(program.source, &options).map_err(compiler)?;
    if let Some(Err(error)) = kept.map(|kept| kept.write(&code)) {
        warn_once(format!("{error}; the GPU's kernels will be compiled again at the next start"));
    }
    load(code).map_err(|error| compiler(error.to_string()))
}

impl Machine for Card {
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        use cudarc::driver::DevicePtr as _;
        let slice = self.stream.alloc_zeros::<u8>(bytes);
        let slice = slice.map_err(|error| no_memory(bytes, error))?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Memory { address, bytes, _owner: Box::new(slice) })
    }

    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError> {
        let to = memory.place(at, from.len());
        if from.len() > SLOT_BYTES {
            // SAFETY: the place is within the memory.
            return unsafe { self.copies.write(to, 1, from.len(), |range, staged| copy(&from[range], staged)) };
        }
        // SAFETY: the place is within the memory.
        unsafe { self.copies.post(to, from) }
    }

    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError> {
        let from = memory.place(at, to.len());
        if to.len() > SLOT_BYTES {
            // SAFETY: the place is within the memory.
            return unsafe { self.copies.read(from, 1, to.len(), |range, staged| copy(staged, &mut to[range])) };
        }
        // SAFETY: the place is within the memory; `to` lives until the copy is done, which is waited for.
        unsafe { self.copies.bus.start_read(from, to) }?;
        self.stream.synchronize().map_err(|error| failed("a copy from it", error))
    }

    fn beside(&self) -> Result<Box<dyn Machine>, GpuError> {
        let stream = self.stream.context().new_stream().map_err(|error| failed("a second stream", error))?;
        Ok(Box::new(Self::with(stream, Functions::default())))
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(|error| failed("what it was asked for", error))
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<(), GpuError>) -> Result<Option<Box<dyn Recording>>, GpuError> {
        // Other threads go on with their copies and memory meanwhile.
        if self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).is_err() {
            return Ok(None);
        }
        let worked = work();
        match self.stream.end_capture(CUgraphInstantiate_flags(0)) {
            Ok(graph) => worked.map(|()| graph.map(|graph| Box::new(Graph(graph)) as Box<dyn Recording>)),
            // Somebody waited for all that the GPU does, which breaks what is being taken down, whoever does it.
            Err(_) => Ok(None),
        }
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

/// Kernels as the driver took them down.
struct Graph(CudaGraph);

impl Recording for Graph {
    unsafe fn run(&self) -> Result<(), GpuError> {
        self.0.launch().map_err(|error| failed("a graph of kernels", error))
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a graph of kernels")
    }
}
