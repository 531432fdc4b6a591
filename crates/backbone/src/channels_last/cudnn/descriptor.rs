//! What cuDNN's graph API is made of
//! (<https://docs.nvidia.com/deeplearning/cudnn/backend/latest/developer/graph-api.html>).

use std::{
    ffi::{CStr, c_char, c_void},
    fmt, ptr,
};

use candle_core::cuda_backend::cudarc::cudnn::{
    result::CudnnError,
    sys::{
        self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
        cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t, cudnnConvolutionMode_t, cudnnDataType_t,
        cudnnHandle_t, cudnnNanPropagation_t, cudnnPointwiseMode_t,
    },
};

/// cuDNN refused something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cuDNN: {what}: {status} ({reason})")]
pub(super) struct Refused {
    what: String,
    status: CudnnError,
    /// In cuDNN's own words.
    reason: String,
}

impl Refused {
    /// Whether there was too little memory: what it refuses now it may do later.
    pub(super) fn is_short_of_memory(&self) -> bool {
        format!("{:?}", self.status.0).contains("ALLOC")
    }
}

/// What an attribute consists of.
///
/// # Safety
/// It lies in memory as cuDNN reads values of [`TYPE`](Self::TYPE).
pub(super) unsafe trait Attribute: Copy {
    const TYPE: Type;
}

/// An address in a GPU's memory.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Address(pub(super) u64);

/// What is to be known of a kernel's arithmetic: a `cudnnBackendNumericalNote_t`, or what a newer cuDNN has besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct NumericalNote(pub(super) u32);

/// What is to be known of a kernel besides: a `cudnnBackendBehaviorNote_t`, or what a newer cuDNN has besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct BehaviorNote(pub(super) u32);

macro_rules! attributes {
    ($($of:ty: $name:ident),+ $(,)?) => { $(
        // SAFETY: cuDNN's type of that name, by its reference.
        unsafe impl Attribute for $of {
            const TYPE: Type = Type::$name;
        }
    )+ };
}

attributes! {
    bool: CUDNN_TYPE_BOOLEAN,
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    Address: CUDNN_TYPE_VOID_PTR,
    sys::cudnnBackendDescriptor_t: CUDNN_TYPE_BACKEND_DESCRIPTOR,
    cudnnHandle_t: CUDNN_TYPE_HANDLE,
    cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    cudnnPointwiseMode_t: CUDNN_TYPE_POINTWISE_MODE,
    cudnnNanPropagation_t: CUDNN_TYPE_NAN_PROPOGATION,
    cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE,
    NumericalNote: CUDNN_TYPE_NUMERICAL_NOTE,
    BehaviorNote: CUDNN_TYPE_BEHAVIOR_NOTE,
    c_char: CUDNN_TYPE_CHAR,
}

/// What may be read: whatever cuDNN writes is a value of it.
pub(super) trait Readable: Attribute {}

impl Readable for i64 {}
impl Readable for NumericalNote {}
impl Readable for BehaviorNote {}
impl Readable for sys::cudnnBackendDescriptor_t {}

/// A descriptor, and those that it speaks of.
pub(super) struct Descriptor {
    raw: sys::cudnnBackendDescriptor_t,
    kind: Kind,
    of: Vec<Descriptor>,
}

impl Descriptor {
    /// One without attributes.
    pub(super) fn new(kind: Kind) -> Result<Self, Refused> {
        let mut raw = ptr::null_mut();
        // SAFETY: there is room for the descriptor.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut raw) };
        check(status, || format!("{kind:?}"))?;
        Ok(Self { raw, kind, of: Vec::new() })
    }

    pub(super) const fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.raw
    }

    /// Sets the attribute `name`.
    pub(super) fn with<T: Attribute>(self, name: Name, values: &[T]) -> Result<Self, Refused> {
        let (count, from) = (values.len() as i64, values.as_ptr().cast::<c_void>());
        // SAFETY: so many values of that type are there, which cuDNN copies.
        let status = unsafe { sys::cudnnBackendSetAttribute(self.raw, name, T::TYPE, count, from) };
        check(status, || format!("{name:?} of {:?}", self.kind))?;
        Ok(self)
    }

    /// Sets the attribute `name` to other descriptors, which are kept for as long as this one.
    pub(super) fn with_descriptors(mut self, name: Name, values: Vec<Self>) -> Result<Self, Refused> {
        let raw: Vec<_> = values.iter().map(Self::raw).collect();
        self.of.extend(values);
        self.with(name, &raw)
    }

    /// Has all attributes; from now on it can be used.
    pub(super) fn finalised(self) -> Result<Self, Refused> {
        // SAFETY: the descriptor is there.
        let status = unsafe { sys::cudnnBackendFinalize(self.raw) };
        check(status, || format!("{:?}", self.kind))?;
        Ok(self)
    }

    /// The attribute `name`: the first values of it, as many as `into` has room for; how many that are.
    pub(super) fn get<T: Readable>(&self, name: Name, into: &mut [T]) -> Result<usize, Refused> {
        let (room, to, mut count) = (into.len() as i64, into.as_mut_ptr().cast::<c_void>(), 0);
        // SAFETY: there is room for so many values of that type.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.raw, name, T::TYPE, room, &raw mut count, to) };
        check(status, || format!("{name:?} of {:?}", self.kind))?;
        Ok(usize::try_from(count).unwrap_or_default().min(into.len()))
    }

    /// The descriptors of `kind` that the attribute `name` consists of.
    pub(super) fn descriptors(&self, name: Name, kind: Kind) -> Result<Vec<Self>, Refused> {
        let mut count = 0;
        let (raw, descriptor) = (self.raw, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR);
        // SAFETY: nothing is written but how many there are.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(raw, name, descriptor, 0, &raw mut count, ptr::null_mut()) };
        check(status, || format!("{name:?} of {:?}", self.kind))?;
        let mut all = (0..count).map(|_| Self::new(kind)).collect::<Result<Vec<_>, _>>()?;
        let mut raw: Vec<_> = all.iter().map(Self::raw).collect();
        // cuDNN fills in descriptors that are there.
        all.truncate(self.get(name, &mut raw)?);
        Ok(all)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nobody else has it; those that it speaks of go after it.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.raw) };
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor").field("kind", &self.kind).field("of", &self.of).finish()
    }
}

pub(super) fn check(status: sys::cudnnStatus_t, what: impl FnOnce() -> String) -> Result<(), Refused> {
    status.result().map_err(|status| {
        let mut message = [0; 1024];
        // SAFETY: there is room for so many bytes, the last of which is 0.
        let reason = unsafe {
            sys::cudnnGetLastErrorString(message.as_mut_ptr(), message.len());
            CStr::from_ptr(message.as_ptr())
        };
        Refused { what: what(), status, reason: reason.to_string_lossy().into_owned() }
    })
}
