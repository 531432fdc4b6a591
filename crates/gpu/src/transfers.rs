use std::{ops::Range, sync::Arc};

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr as _, DeviceRepr, ValidAsZeroBits};

use crate::{
    GpuError,
    copies::Copies,
    stream::{Stream, failed, no_memory},
};

/// Copies to and from a GPU, of what others compute there: beside its kernels, by way of pinned memory.
#[derive(Debug)]
pub struct Transfers {
    copies: Copies<Stream>,
}

/// When a GPU has done all that a stream had been asked for.
#[derive(Debug)]
pub struct Ready(CudaEvent);

impl Ready {
    /// For all that `stream` has been asked for so far.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn of(stream: &CudaStream) -> Result<Self, GpuError> {
        stream.record_event(None).map(Self).map_err(|error| failed("an event", error))
    }
}

impl Transfers {
    /// On the GPU of `stream`.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn beside(stream: &CudaStream) -> Result<Self, GpuError> {
        let stream = stream.context().new_stream().map_err(|error| failed("a second stream", error))?;
        Ok(Self { copies: Copies::new(Stream(stream)) })
    }

    /// Has `fill` put down `parts` parts of `part` values, some at a time, and brings them to the GPU. They are there when this
    /// returns.
    ///
    /// # Errors
    /// If the GPU fails, or has no memory left.
    pub fn upload<T: Pod + DeviceRepr + ValidAsZeroBits>(
        &self,
        part: usize,
        parts: usize,
        mut fill: impl FnMut(Range<usize>, &mut [T]),
    ) -> Result<CudaSlice<T>, GpuError> {
        let part_bytes = part * size_of::<T>();
        let stream: &Arc<CudaStream> = &self.copies.bus.0;
        let slice = stream.alloc_zeros::<T>(part * parts).map_err(|error| no_memory(part_bytes * parts, error))?;
        let to = slice.device_ptr(stream).0;
        // SAFETY: the slice is as long.
        unsafe {
            self.copies.write(to, part_bytes, parts, |range, staged| fill(range, bytemuck::cast_slice_mut(staged)))
        }?;
        Ok(slice)
    }

    /// Copies `parts` parts of `part` values from `at` on in `slice`, when it is `ready`, and hands them to `take`, some at a time.
    ///
    /// # Errors
    /// If the GPU fails, now or in a kernel before.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn download<T: Pod>(
        &self,
        ready: &Ready,
        slice: &CudaSlice<T>,
        at: usize,
        [part, parts]: [usize; 2],
        mut take: impl FnMut(Range<usize>, &[T]),
    ) -> Result<(), GpuError> {
        assert!(at + part * parts <= slice.len(), "{} values from {at} on, of {}", part * parts, slice.len());
        let own: &Arc<CudaStream> = &self.copies.bus.0;
        own.wait(&ready.0).map_err(|error| failed("waiting for its kernels", error))?;
        let from = slice.device_ptr(own).0 + (at * size_of::<T>()) as u64;
        let take = |range, staged: &[u8]| take(range, bytemuck::cast_slice(staged));
        // SAFETY: the slice holds as many, and lives until they have been copied, which is waited for.
        unsafe { self.copies.read(from, part * size_of::<T>(), parts, take) }
    }
}
