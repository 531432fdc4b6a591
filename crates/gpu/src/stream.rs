use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use cudarc::driver::{CudaEvent, CudaStream, DriverError, result, sys::CUresult};

use crate::{GpuError, copies::Bus};

/// A GPU's copies, in the order of one stream.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) Arc<CudaStream>);

impl Bus for Stream {
    type Pinned = Pinned;
    type Moment = CudaEvent;

    fn pinned(&self, bytes: usize) -> Result<Pinned, GpuError> {
        let failed = |error| failed("memory that is pinned", error);
        self.0.context().bind_to_thread().map_err(failed)?;
        // Not write-combined, as cudarc's own is: the processor reads it, too.
        // SAFETY: it is freed once, by `Pinned`.
        let memory = unsafe { result::malloc_host(bytes, 0) }.map_err(failed)?;
        let no_memory = || GpuError::Memory { bytes, reason: "there is none that can be pinned".to_owned() };
        let address = NonNull::new(memory.cast::<u8>()).ok_or_else(no_memory)?;
        // SAFETY: there are as many bytes. What is in them was another's, or nothing: they begin as zeros.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Pinned { address, bytes, stream: Arc::clone(&self.0) })
    }

    unsafe fn start_write(&self, to: u64, from: &[u8]) -> Result<(), GpuError> {
        // SAFETY: the place and `from` are the caller's to vouch for.
        let started = self
            .0
            .context()
            .bind_to_thread()
            .and_then(|()| unsafe { result::memcpy_htod_async(to, from, self.0.cu_stream()) });
        started.map_err(|error| failed("a copy to it", error))
    }

    unsafe fn start_read(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        // SAFETY: the place and `to` are the caller's to vouch for.
        let started = self
            .0
            .context()
            .bind_to_thread()
            .and_then(|()| unsafe { result::memcpy_dtoh_async(to, from, self.0.cu_stream()) });
        started.map_err(|error| failed("a copy from it", error))
    }

    fn moment(&self) -> Result<CudaEvent, GpuError> {
        self.0.record_event(None).map_err(|error| failed("an event", error))
    }

    fn wait(&self, moment: &CudaEvent) -> Result<(), GpuError> {
        moment.synchronize().map_err(|error| failed("a copy, or a kernel before it", error))
    }
}

/// Memory of the processor that a GPU's bus reaches.
#[derive(Debug)]
pub(crate) struct Pinned {
    address: NonNull<u8>,
    bytes: usize,
    stream: Arc<CudaStream>,
}

// SAFETY: it is nobody else's, and any thread may free it.
unsafe impl Send for Pinned {}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: there are as many bytes, written when they were taken.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A copy that was given up half-way may still use it.
        let _ = self.stream.synchronize();
        // SAFETY: it was taken by `malloc_host`, and is freed once.
        let _ = unsafe { result::free_host(self.address.as_ptr().cast()) };
    }
}

pub(crate) fn failed(what: &str, error: DriverError) -> GpuError {
    GpuError::Failed { what: what.to_owned(), reason: error.to_string() }
}

/// Why `bytes` of memory cannot be had: mostly since there are none left, which less at once may mend.
pub(crate) fn no_memory(bytes: usize, error: DriverError) -> GpuError {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::Memory { bytes, reason: error.to_string() },
        _ => failed("taking memory", error),
    }
}
