use std::{sync::Arc, time::Instant};

use candle_core::{
    CudaDevice, CudaStorage, Device, Error, Layout, Result, Shape, Storage,
    backend::BackendDevice as _,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{CudaSlice, CudaStream, DevicePtr as _, DevicePtrMut as _, DeviceRepr, SyncOnDrop},
    },
};
use gpu::{Card, Machine as _, PassKernel, Program};

use super::Kernels;

impl Kernels {
    pub(super) fn on(device: &Device) -> Result<Self> {
        let Device::Cuda(device) = device else { return Ok(Self::default()) };
        let card = Card::on(device.cuda_stream(), &Program::pass()).map_err(Error::wrap)?;
        Ok(Self { card: Some(Arc::new(card)) })
    }

    /// Asks the GPU for `kernel`.
    ///
    /// # Safety
    /// Its addresses are those of memory that holds what it reads and writes.
    pub(super) unsafe fn launch(&self, kernel: &PassKernel) -> Result<()> {
        let Some(card) = &self.card else { candle_core::bail!("the kernels are not on this device") };
        // SAFETY: the caller vouches for the addresses; the rest is the kernel's.
        unsafe { card.launch(kernel.name, [kernel.blocks, 1, 1], kernel.threads, &kernel.arguments) }
            .map_err(Error::wrap)
    }
}

/// Seconds of `work` as a mean of `times`, once it was done for nothing.
pub(super) fn mean_seconds(device: &CudaDevice, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    device.synchronize()?;
    let begun = Instant::now();
    for _ in 0..times {
        work()?;
    }
    device.synchronize()?;
    Ok(begun.elapsed().as_secs_f64() / times as f64)
}

/// Fails unless a tensor lies in its memory as it is.
pub(super) fn check_whole(layout: &Layout) -> Result<()> {
    if layout.is_contiguous() && layout.start_offset() == 0 {
        return Ok(());
    }
    candle_core::bail!("the activations do not lie one behind the other")
}

/// Fails if there is a shortcut of another shape.
pub(super) fn check_like(shape: &Shape, shortcut: Option<(&CudaStorage, &Layout)>) -> Result<()> {
    match shortcut {
        Some((_, of)) if of.shape() != shape => {
            candle_core::bail!("a shortcut of {:?} is added to {shape:?}", of.shape())
        }
        _ => Ok(()),
    }
}

/// What lies on a GPU.
pub(super) fn gpu_storage(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => candle_core::bail!("activations or weights are on another device"),
    }
}

/// Where a tensor of a GPU lies, which must lie there as it is, for kernels on `stream`. Whoever frees it, on whatever stream it
/// was made, waits for what `stream` was asked for before the guard was dropped.
pub(super) fn place<'a, T: CudaDType + 'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    check_whole(layout)?;
    Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream))
}

/// The same of a tensor that the network keeps.
pub(super) fn place_of<'a, T: CudaDType + 'a>(
    (storage, layout): &'a (impl std::ops::Deref<Target = Storage>, &Layout),
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    place::<T>(gpu_storage(storage)?, layout, stream)
}

/// A tensor of `shape` that `write` has a kernel write whole: it is told where the tensor lies, and the stream of `device`.
///
/// # Safety
/// All of it is written.
pub(super) unsafe fn written<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    shape: Shape,
    write: impl FnOnce(u64, &CudaStream) -> Result<()>,
) -> Result<(CudaStorage, Shape)> {
    let stream = device.cuda_stream();
    // SAFETY: the caller vouches for what is written before anybody reads.
    let mut out: CudaSlice<T> = unsafe { device.alloc(shape.elem_count()) }?;
    {
        let (address, _out) = out.device_ptr_mut(&stream);
        write(address, &stream)?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
}
