//! How images come to a device, and maps from it.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, WithDType};
use half::f16;
use rayon::prelude::*;
use sources::Source;

use crate::FeatureSink;

#[cfg(feature = "cuda")]
use self::gpus::Gpus;

/// What maps consist of.
#[cfg(not(feature = "cuda"))]
pub(crate) trait MapValue: WithDType {}

/// What maps consist of.
#[cfg(feature = "cuda")]
pub(crate) trait MapValue: WithDType + candle_core::cuda_backend::CudaDType + bytemuck::Pod {}

impl MapValue for f32 {}

impl MapValue for f16 {}

/// The way to a device. Several passes may use it at once: what one copies does not wait for what another computes.
#[derive(Debug, Default)]
pub(crate) struct Crossing {
    #[cfg(feature = "cuda")]
    gpus: Gpus,
}

/// A tensor that the device has been asked for, its parts behind each other in the first dimension.
#[derive(Debug)]
pub(crate) struct Leaving {
    tensor: Tensor,
    #[cfg(feature = "cuda")]
    ready: Option<gpu::Ready>,
}

/// Maps of a pass on their way to their sinks. All is asked of the device before the first is waited for.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// The place among the sinks, and the values as they come.
    maps: Vec<(usize, DType, Leaving)>,
}

impl Departures {
    /// Has the map of `stage`, (N, H, W, C), leave for each of `sinks` that wants it; if `rounds`, rounded on the device where that
    /// is what becomes of it, so that half as much is copied.
    pub(crate) fn leave<S: FeatureSink>(
        &mut self,
        crossing: &Crossing,
        stage: usize,
        map: &Tensor,
        sinks: &[(Source, Vec<S>)],
        rounds: bool,
    ) -> Result<()> {
        for (place, (source, sinks)) in sinks.iter().enumerate() {
            if source.stage() == Some(stage) {
                let halves = rounds && sinks.iter().all(FeatureSink::keeps_halves);
                let dtype = if halves { DType::F16 } else { DType::F32 };
                self.maps.push((place, dtype, crossing.leave(&map.to_dtype(dtype)?)?));
            }
        }
        Ok(())
    }

    /// Hands all of them to their `sinks`.
    pub(crate) fn arrive<S: FeatureSink>(self, crossing: &Crossing, sinks: &mut [(Source, Vec<S>)]) -> Result<()> {
        for (place, dtype, leaving) in self.maps {
            let (source, sinks) = &mut sinks[place];
            let (row, map) = (source.side() * source.channels(), source.values_per_image());
            match dtype {
                DType::F16 => crossing.arrive(&leaving, |images, values: &[f16]| {
                    let sinks = sinks[images].par_iter_mut().zip(values.par_chunks_exact(map));
                    sinks.for_each(|(sink, map)| sink.take_halves(map.chunks_exact(row)));
                }),
                _ => crossing.arrive(&leaving, |images, values: &[f32]| {
                    let sinks = sinks[images].par_iter_mut().zip(values.par_chunks_exact(map));
                    sinks.for_each(|(sink, map)| sink.take(map.chunks_exact(row)));
                }),
            }?;
        }
        Ok(())
    }
}

impl Crossing {
    /// `parts`, which are equally long, as a tensor (parts, values) on `device`.
    pub(crate) fn to_device(&self, parts: &[Vec<f32>], device: &Device) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            return self.gpus.upload(parts, device);
        }
        let shape = (parts.len(), parts.first().map_or(0, Vec::len));
        Tensor::from_vec(parts.concat(), shape, device)
    }

    /// Marks where `tensor` is computed, so that nobody waits for what is asked of the device behind it.
    pub(crate) fn leave(&self, tensor: &Tensor) -> Result<Leaving> {
        let tensor = tensor.contiguous()?;
        Ok(Leaving {
            #[cfg(feature = "cuda")]
            ready: gpus::ready(tensor.device())?,
            tensor,
        })
    }

    /// Hands the parts of what is `leaving` to `take`, some at a time.
    pub(crate) fn arrive<T: MapValue>(
        &self,
        leaving: &Leaving,
        mut take: impl FnMut(Range<usize>, &[T]),
    ) -> Result<()> {
        let Leaving { tensor, .. } = leaving;
        #[cfg(feature = "cuda")]
        if let Some(ready) = &leaving.ready {
            return self.gpus.download(ready, tensor, take);
        }
        take(0..tensor.dim(0)?, &tensor.flatten_all()?.to_vec1::<T>()?);
        Ok(())
    }
}

#[cfg(feature = "cuda")]
mod gpus {
    use std::{
        ops::Range,
        sync::{Mutex, PoisonError},
    };

    use candle_core::{CudaDevice, CudaStorage, Device, Error, Result, Storage, Tensor, op::BackpropOp};
    use gpu::{GpuError, Ready, Transfers};
    use rayon::prelude::*;

    use super::MapValue;

    /// Ways to one GPU that nobody uses at the moment.
    #[derive(Debug, Default)]
    pub(super) struct Gpus {
        idle: Mutex<Vec<Transfers>>,
    }

    impl Gpus {
        pub(super) fn upload(&self, parts: &[Vec<f32>], device: &CudaDevice) -> Result<Tensor> {
            let values = parts.first().map_or(0, Vec::len);
            let slice = self.with(device, |transfers| {
                transfers.upload(values, parts.len(), |range, staged: &mut [f32]| {
                    staged
                        .par_chunks_exact_mut(values)
                        .zip(&parts[range])
                        .for_each(|(to, part)| to.copy_from_slice(part));
                })
            })?;
            let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, device.clone()));
            Ok(Tensor::from_storage(storage, (parts.len(), values), BackpropOp::none(), false))
        }

        pub(super) fn download<T: MapValue>(
            &self,
            ready: &Ready,
            tensor: &Tensor,
            take: impl FnMut(Range<usize>, &[T]),
        ) -> Result<()> {
            let (storage, layout) = tensor.storage_and_layout();
            let (Storage::Cuda(storage), Device::Cuda(device)) = (&*storage, tensor.device()) else {
                candle_core::bail!("the maps are on another device");
            };
            let parts = tensor.dim(0)?;
            let shape = [tensor.elem_count() / parts.max(1), parts];
            let slice = storage.as_cuda_slice::<T>()?;
            self.with(device, |transfers| transfers.download(ready, slice, layout.start_offset(), shape, take))
        }

        fn with<T>(
            &self,
            device: &CudaDevice,
            work: impl FnOnce(&Transfers) -> std::result::Result<T, GpuError>,
        ) -> Result<T> {
            let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let transfers = idle().pop();
            let transfers =
                transfers.map_or_else(|| Transfers::beside(&device.cuda_stream()), Ok).map_err(Error::wrap)?;
            let done = work(&transfers).map_err(Error::wrap);
            idle().push(transfers);
            done
        }
    }

    /// When what has been asked of `device` so far is done; none if it is no GPU.
    pub(super) fn ready(device: &Device) -> Result<Option<Ready>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        Ready::of(&device.cuda_stream()).map(Some).map_err(Error::wrap)
    }
}
