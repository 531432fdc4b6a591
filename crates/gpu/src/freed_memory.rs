//! What becomes of a GPU's memory that was given back. Memory is allocated in the order of a stream, from a pool of the driver's, which
//! gives what is free there back to the GPU whenever somebody waits for it, and takes it anew when it is asked for, page by page:
//! <https://docs.nvidia.com/cuda/cuda-c-programming-guide/#physical-page-caching-behavior>.

use cudarc::driver::{CudaStream, DriverError, result, sys};

use crate::{GpuError, stream::failed};

/// Has the pool of `stream`'s GPU keep it for the next who asks, from now on.
///
/// # Errors
/// If the driver refuses; not if there is no such pool.
pub fn keep_freed_memory(stream: &CudaStream) -> Result<(), GpuError> {
    let mut most_bytes = u64::MAX;
    let keep = |pool| {
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the GPU's own, the attribute a number of 64 bits.
        unsafe { result::mem_pool::set_attribute(pool, threshold, (&raw mut most_bytes).cast()) }
    };
    of_pool(stream, keep).map_err(|error| failed("keeping memory", error))
}

/// Has it give back what it keeps, once the GPU has done what it was asked for.
///
/// # Errors
/// If the GPU fails, or has failed before.
pub fn release_freed_memory(stream: &CudaStream) -> Result<(), GpuError> {
    let done = stream.context().synchronize();
    // SAFETY: the pool is the GPU's own.
    done.and_then(|()| of_pool(stream, |pool| unsafe { result::mem_pool::trim_to(pool, 0) }))
        .map_err(|error| failed("giving back memory", error))
}

/// Bytes that are free on the GPU of `stream`, what the pool kept included.
///
/// # Errors
/// If the GPU fails, or has failed before.
pub fn free_bytes(stream: &CudaStream) -> Result<u64, GpuError> {
    release_freed_memory(stream)?;
    let (free, _) = stream.context().mem_get_info().map_err(|error| failed("a question about its memory", error))?;
    Ok(free as u64)
}

/// Calls `act` with the pool, if the GPU has one.
fn of_pool(
    stream: &CudaStream,
    act: impl FnOnce(sys::CUmemoryPool) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let context = stream.context();
    context.bind_to_thread()?;
    // SAFETY: it is the context's device.
    match unsafe { result::device::get_mem_pool(context.cu_device()) } {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_SUPPORTED)) => Ok(()),
        pool => act(pool?),
    }
}
