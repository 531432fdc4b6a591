use std::{any::Any, fmt};

/// Where kernels run, and what they run on.
pub trait Machine: fmt::Debug + Send {
    /// Memory of `bytes` zeros.
    ///
    /// # Errors
    /// If there is none left.
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError>;

    /// Copies `from` to `memory`, from byte `at` on, before anything that this machine is asked for behind it.
    ///
    /// # Errors
    /// If the machine fails.
    ///
    /// # Panics
    /// If there is no room for it.
    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError>;

    /// Copies the bytes of `memory` from `at` on, when all has run that this machine was asked for before.
    ///
    /// # Errors
    /// If the machine fails, now or in a kernel before.
    ///
    /// # Panics
    /// If there are not as many.
    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError>;

    /// Another way to the same memory, for another thread: its copies do not wait for kernels, nor kernels for them. It runs
    /// none itself.
    ///
    /// # Errors
    /// If the machine fails.
    fn beside(&self) -> Result<Box<dyn Machine>, GpuError>;

    /// Waits until all has been done that this machine was asked for.
    ///
    /// # Errors
    /// If it failed.
    fn finish(&self) -> Result<(), GpuError>;

    /// Takes down the kernels that `work` asks for, without running them: to be run together as often as wanted, at the cost of
    /// asking once. None if the machine cannot.
    ///
    /// # Errors
    /// Those of `work`.
    fn record(&self, work: &mut dyn FnMut() -> Result<(), GpuError>) -> Result<Option<Box<dyn Recording>>, GpuError>;

    /// Has `kernel` run with blocks of `threads` threads, after all that was asked for before.
    ///
    /// # Safety
    /// The arguments are of the kernel's types, and the addresses among them those of memory that holds what it reads and
    /// writes.
    ///
    /// # Errors
    /// If there is no such kernel, or the machine fails.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), GpuError>;
}

/// Kernels that were taken down.
pub trait Recording: fmt::Debug {
    /// Has all of them run, after all that the machine was asked for before.
    ///
    /// # Safety
    /// All memory that they were given is still there.
    ///
    /// # Errors
    /// If the machine fails.
    unsafe fn run(&self) -> Result<(), GpuError>;
}

/// A machine's memory, which is given back with this.
#[derive(Debug)]
pub struct Memory {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
    /// What gives it back.
    pub(crate) _owner: Box<dyn Any + Send>,
}

impl Memory {
    /// Where its bytes from `at` to `at + count` lie.
    pub(crate) fn place(&self, at: usize, count: usize) -> u64 {
        assert!(at.checked_add(count).is_some_and(|end| end <= self.bytes), "a place in a machine's memory");
        self.address + at as u64
    }
}

/// What a kernel is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// Where something lies in the machine's memory; 0 for nothing.
    Address(u64),
    /// `long`
    Long(i64),
    /// `int`
    Int(i32),
    /// `float`
    Float(f32),
}

impl Argument {
    /// Where the argument itself lies.
    #[cfg(feature = "on-cpu")]
    pub(crate) const fn pointer(&self) -> *mut std::ffi::c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

/// What can go wrong on a machine.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The kernels cannot be compiled.
    #[error("the GPU's kernels cannot be compiled for {what}: {reason}")]
    Compiler {
        /// For what.
        what: String,
        /// What the compiler says.
        reason: String,
    },
    /// The GPU is too old for what it was asked for.
    #[error(
        "a GPU of compute capability {major}.{minor} does not multiply in bfloat16, which Ampere (8.0) and later do\n\nhint: set extract.precision or train.precision to f32"
    )]
    NoBfloat16 {
        /// Of its compute capability, before the point.
        major: i32,
        /// And behind it.
        minor: i32,
    },
    /// There is not enough memory.
    #[error(
        "the GPU has no {bytes} bytes of memory left: {reason}\n\nhint: set a smaller recipe.batch, or train fewer runs at once"
    )]
    Memory {
        /// How many were asked for.
        bytes: usize,
        /// What the driver says.
        reason: String,
    },
    /// A kernel or a copy failed.
    #[error("the GPU failed at {what}: {reason}")]
    Failed {
        /// What it was asked to do.
        what: String,
        /// What the driver says.
        reason: String,
    },
}
