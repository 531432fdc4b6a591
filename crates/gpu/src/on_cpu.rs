use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    io,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Argument, GpuError, Machine, Memory, Program, Recording};

/// CUDA's words for a C++ compiler.
const HEADER: &str = include_str!("cuda/on_cpu.h");

/// What a card stops at, or answers with nonsense, without a word, and a processor does not: a wide load from where none may begin, a
/// place beyond an array's end.
const TRAPS: [&str; 2] = ["-fsanitize=alignment,bounds,shift", "-fsanitize-undefined-trap-on-error"];

type Launch = unsafe extern "C" fn(*const c_char, *const c_uint, c_uint, *mut *mut c_void) -> c_int;

/// The kernels on the CPU, one thread after the other: for tests where there is no card.
#[derive(Clone, Debug)]
pub struct OnCpu {
    /// The emulated card has one set of threads.
    library: Arc<Mutex<libloading::Library>>,
    /// Those that are taken down at the moment.
    recording: Arc<Mutex<Option<Vec<Asked>>>>,
}

/// A kernel that was asked for.
#[derive(Clone, Debug)]
struct Asked {
    kernel: &'static str,
    grid: [usize; 3],
    threads: usize,
    arguments: Vec<Argument>,
}

/// Kernels to be run by the machine that took them down.
#[derive(Debug)]
struct RecordingOnCpu {
    machine: OnCpu,
    asked: Vec<Asked>,
}

impl OnCpu {
    /// Compiles `program`; none if there is no C++ compiler.
    ///
    /// # Errors
    /// If they cannot be compiled.
    pub fn new(program: &Program) -> Result<Option<Self>, GpuError> {
        let failed = |reason: String| GpuError::Compiler { what: "the CPU".to_owned(), reason };
        let io = |error: io::Error| failed(error.to_string());
        let folder = tempfile::tempdir().map_err(io)?;
        let (source, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
        std::fs::write(&source, [HEADER, program.source].concat()).map_err(io)?;
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let mut command = Command::new(&compiler);
        // Where a compiler fortifies by itself, the jumps between threads would be taken for an attack.
        command
            .args(["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"])
            .args(TRAPS)
            .args(&program.options)
            .arg(&source);
        let output = match command.arg("-o").arg(&library).output() {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // SAFETY: the library is the kernels', which do nothing when they are loaded but put down their names.
        let library = unsafe { libloading::Library::new(&library) }.map_err(|error| failed(error.to_string()))?;
        Ok(Some(Self { library: Arc::new(Mutex::new(library)), recording: Arc::default() }))
    }

    /// Has blocks, and their threads between barriers, take turns in an order of their own from now on: 0 forwards, 1 backwards,
    /// others at random. A card promises none, so that what depends on it is an error.
    ///
    /// # Errors
    /// If the kernels lack what does so.
    pub fn arrange(&self, order: u32) -> Result<(), GpuError> {
        let failed =
            |error: libloading::Error| GpuError::Failed { what: "arrange".to_owned(), reason: error.to_string() };
        let library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the header declares the function so.
        unsafe { library.get::<unsafe extern "C" fn(c_uint)>(b"arrange\0").map_err(failed)?(order) };
        Ok(())
    }
}

impl OnCpu {
    fn recording(&self) -> MutexGuard<'_, Option<Vec<Asked>>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording for RecordingOnCpu {
    unsafe fn run(&self) -> Result<(), GpuError> {
        self.asked.iter().try_for_each(|Asked { kernel, grid, threads, arguments }| {
            // SAFETY: they were right when they were taken down, and their memory is the caller's to vouch for.
            unsafe { self.machine.launch(kernel, *grid, *threads, arguments) }
        })
    }
}

impl Machine for OnCpu {
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        MemoryOnCpu.allocate(bytes)
    }

    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError> {
        MemoryOnCpu.write(memory, at, from)
    }

    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError> {
        MemoryOnCpu.read(memory, at, to)
    }

    fn beside(&self) -> Result<Box<dyn Machine>, GpuError> {
        Ok(Box::new(MemoryOnCpu))
    }

    fn finish(&self) -> Result<(), GpuError> {
        Ok(())
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<(), GpuError>) -> Result<Option<Box<dyn Recording>>, GpuError> {
        *self.recording() = Some(Vec::new());
        let worked = work();
        let asked = self.recording().take().unwrap_or_default();
        worked?;
        Ok(Some(Box::new(RecordingOnCpu { machine: self.clone(), asked })))
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), GpuError> {
        if let Some(asked) = &mut *self.recording() {
            asked.push(Asked { kernel, grid, threads, arguments: arguments.to_vec() });
            return Ok(());
        }
        let failed = |reason: String| GpuError::Failed { what: kernel.to_owned(), reason };
        let name = CString::new(kernel).map_err(|error| failed(error.to_string()))?;
        let grid = grid.map(|blocks| blocks as c_uint);
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the header declares the function so; what the kernel is given is the caller's to vouch for.
        let found = unsafe {
            let launch = library.get::<Launch>(b"launch\0").map_err(|error| failed(error.to_string()))?;
            launch(name.as_ptr(), grid.as_ptr(), threads as c_uint, pointers.as_mut_ptr())
        };
        if found == 0 { Ok(()) } else { Err(failed("there is no such kernel".to_owned())) }
    }
}

/// The emulated card's memory, which is the processor's.
#[derive(Debug)]
struct MemoryOnCpu;

/// Zeros that begin where a card's memory would, between marks that nobody may write over.
struct Guarded {
    room: Vec<u8>,
    begin: usize,
    bytes: usize,
}

impl Guarded {
    const ALIGNMENT: usize = 256;
    const MARK: u8 = 0xC9;

    fn new(bytes: usize) -> Self {
        let room = vec![Self::MARK; bytes + 3 * Self::ALIGNMENT];
        let begin = Self::ALIGNMENT + room.as_ptr().align_offset(Self::ALIGNMENT);
        let mut guarded = Self { room, begin, bytes };
        guarded.inner().fill(0);
        guarded
    }

    fn inner(&mut self) -> &mut [u8] {
        &mut self.room[self.begin..][..self.bytes]
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let (before, behind) = (&self.room[..self.begin], &self.room[self.begin + self.bytes..]);
        let is_whole = before.iter().chain(behind).all(|byte| *byte == Self::MARK);
        assert!(is_whole || std::thread::panicking(), "a kernel wrote beyond the ends of {} bytes", self.bytes);
    }
}

impl Machine for MemoryOnCpu {
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        let mut guarded = Guarded::new(bytes);
        Ok(Memory { address: guarded.inner().as_mut_ptr() as u64, bytes, _owner: Box::new(guarded) })
    }

    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError> {
        let to = memory.place(at, from.len()) as *mut u8;
        // SAFETY: the place is within the memory, which is the machine's own.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError> {
        let from = memory.place(at, to.len()) as *const u8;
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn beside(&self) -> Result<Box<dyn Machine>, GpuError> {
        Ok(Box::new(Self))
    }

    fn finish(&self) -> Result<(), GpuError> {
        Ok(())
    }

    fn record(&self, _: &mut dyn FnMut() -> Result<(), GpuError>) -> Result<Option<Box<dyn Recording>>, GpuError> {
        Ok(None)
    }

    unsafe fn launch(&self, kernel: &'static str, _: [usize; 3], _: usize, _: &[Argument]) -> Result<(), GpuError> {
        Err(GpuError::Failed { what: kernel.to_owned(), reason: "this is memory only".to_owned() })
    }
}
