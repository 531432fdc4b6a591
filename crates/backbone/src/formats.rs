//! The three file formats of weights. Files come from anywhere: what they say of themselves is checked before a reader of
//! candle's takes memory for it.

use std::path::Path;

use candle_core::{
    Device, Tensor,
    npy::NpzTensors,
    pickle::{PthTensors, read_pth_tensor_info},
};

use crate::{archive::Archive, pickle};

type Named = Vec<(String, Tensor)>;

/// Longest pickle of a state dict. That of ResNet-18 has 50 KB.
const MOST_PICKLE_BYTES: u64 = 16 << 20;

/// The beginning of an `.npy` file up to the length of its header, which has 4 bytes since version 2 of the format.
const NPY_BYTES_BEFORE_HEADER: u64 = 12;

/// The tensors of a `.safetensors` file, whose reader checks all sizes itself.
pub(crate) fn read_safetensors(path: &Path) -> Result<Named, String> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).map_err(|error| error.to_string())?;
    Ok(tensors.into_iter().collect())
}

/// The tensors of an `.npz` file.
pub(crate) fn read_npz(path: &Path) -> Result<Named, String> {
    let mut archive = Archive::open(path)?;
    archive.look("", NPY_BYTES_BEFORE_HEADER, |bytes, size| match npy_header_length(bytes) {
        Some(length) if u64::from(length) > size => {
            Err(format!("an array of {size} bytes claims a header of {length}"))
        }
        _ => Ok(()),
    })?;
    let arrays = NpzTensors::new(path).map_err(|error| error.to_string())?;
    let mut named = Named::new();
    for name in arrays.names() {
        let (shape, dtype) = arrays.get_shape_and_dtype(name).map_err(|error| error.to_string())?;
        archive.check(name, 0, shape.dims(), dtype)?;
        let array = arrays.get(name).map_err(|error| error.to_string())?;
        named.extend(array.map(|array| (name.clone(), array)));
    }
    Ok(named)
}

/// The length of an array's header, as its first bytes tell it.
fn npy_header_length(bytes: &[u8]) -> Option<u32> {
    match (bytes.get(6)?, bytes.get(8..)?) {
        (1, [low, high, ..]) => Some(u16::from_le_bytes([*low, *high]).into()),
        (2, length) => length.first_chunk().copied().map(u32::from_le_bytes),
        _ => None,
    }
}

/// The tensors of a state dict, which may lie under a key of a training script's checkpoint.
pub(crate) fn read_state_dict(path: &Path) -> Result<Named, String> {
    let mut archive = Archive::open(path)?;
    archive.look("data.pkl", MOST_PICKLE_BYTES, |pickle, size| match size > MOST_PICKLE_BYTES {
        true => Err(format!("its pickle has {size} bytes, expected at most {MOST_PICKLE_BYTES}")),
        false => pickle::check(pickle),
    })?;
    let bare = read_tensors(path, &archive, None)?;
    if !bare.is_empty() {
        return Ok(bare);
    }
    let mut faults = String::new();
    for key in ["state_dict", "model"] {
        match read_tensors(path, &archive, Some(key)) {
            Ok(tensors) if !tensors.is_empty() => return Ok(tensors),
            Ok(_) => {}
            Err(fault) => faults += &format!("; under `{key}`: {fault}"),
        }
    }
    Err(format!("it holds no tensors by name{faults}"))
}

fn read_tensors(path: &Path, archive: &Archive, key: Option<&str>) -> Result<Named, String> {
    let infos = read_pth_tensor_info(path, false, key).map_err(|error| error.to_string())?;
    let mut bytes = 0u64;
    for info in &infos {
        let layout = &info.layout;
        archive.check(&info.path, layout.start_offset(), layout.dims(), info.dtype)?;
        bytes = bytes.saturating_add((layout.shape().elem_count() * info.dtype.size_in_bytes()) as u64);
    }
    archive.check_sum(bytes)?;
    let tensors = PthTensors::new(path, key).map_err(|error| error.to_string())?;
    let mut named = Named::new();
    for name in tensors.tensor_infos().keys() {
        let tensor = tensors.get(name).map_err(|error| error.to_string())?;
        named.extend(tensor.map(|tensor| (name.clone(), tensor)));
    }
    Ok(named)
}
