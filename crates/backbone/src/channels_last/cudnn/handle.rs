use std::sync::Arc;

use candle_core::{
    Error, Result,
    cuda_backend::cudarc::{
        cudnn::{result, sys::cudnnHandle_t},
        driver::CudaStream,
    },
};

/// What cuDNN is called with, on one thread.
#[derive(Debug)]
pub(super) struct Handle {
    raw: cudnnHandle_t,
    /// Where it asks for its work.
    stream: Arc<CudaStream>,
}

impl Handle {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self> {
        // It is for the GPU that is the thread's now.
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let handle = Self { raw: result::create_handle().map_err(Error::wrap)?, stream };
        // SAFETY: both are there, and the stream for as long as the handle.
        unsafe { result::set_stream(handle.raw, handle.stream.cu_stream().cast()) }.map_err(Error::wrap)?;
        Ok(handle)
    }

    pub(super) const fn raw(&self) -> cudnnHandle_t {
        self.raw
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A thread ends when its last pass has; there is nobody to tell of what fails now.
        let _ = self.stream.context().bind_to_thread();
        // SAFETY: nobody else has it.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}
