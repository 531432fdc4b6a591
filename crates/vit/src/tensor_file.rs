//! Safetensors files with a checksum.
//!
//! `__metadata__` has one key, `fmstudy`, whose value is `{"blake3":"…","about":…}`. The hash covers the
//! bytes of `about` and, in the order of their names, each tensor's name, dtype, shape and bytes. One key
//! only, because safetensors writes several in random order and equal content should give equal files.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::Path,
};

use candle_core::{Device, Tensor};
use safetensors::{SafeTensors, tensor::View};
use serde::{Serialize, de::DeserializeOwned};
use stage::{AtomicFile, ContentHash};

use crate::VitError;

const KEY: &str = "fmstudy";
const BEFORE_HASH: &str = r#"{"blake3":""#;
const BEFORE_ABOUT: &str = r#"","about":"#;

/// Tensors and what the file says about them.
pub(crate) struct TensorFile<A> {
    pub(crate) about: A,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Writes the file `path` atomically.
pub(crate) fn write(path: &Path, about: &impl Serialize, tensors: &BTreeMap<String, Tensor>) -> Result<(), VitError> {
    let about = serde_json::to_string(about)?;
    let hash = checksum(&about, tensors.iter());
    let metadata = HashMap::from([(KEY.to_owned(), format!("{BEFORE_HASH}{hash}{BEFORE_ABOUT}{about}}}"))]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(candle_core::Error::from)?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes)?;
    Ok(file.commit()?)
}

/// Reads the file `path` onto `device` and checks its hash.
pub(crate) fn read<A: DeserializeOwned>(path: &Path, device: &Device) -> Result<TensorFile<A>, VitError> {
    parse(path, &fs_err::read(path)?, device)
}

/// The same from the file's `bytes`.
pub(crate) fn parse<A: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    device: &Device,
) -> Result<TensorFile<A>, VitError> {
    let damaged = |reason: String| VitError::Damaged { path: path.to_owned(), reason };
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY))
        .ok_or_else(|| damaged(format!("no metadata under `{KEY}`")))?;
    let (hash, about) =
        hash_and_about(metadata).ok_or_else(|| damaged(format!("the metadata under `{KEY}` has another form")))?;
    if content_hash(about, &file).to_string() != hash {
        return Err(damaged("the checksum does not match the content".to_owned()));
    }
    let about = serde_json::from_str(about).map_err(|error| damaged(format!("`about`: {error}")))?;
    let tensors = candle_core::safetensors::load_buffer(bytes, device)?.into_iter().collect();
    Ok(TensorFile { about, tensors })
}

/// The checksum and the rest of the metadata under [`KEY`].
fn hash_and_about(metadata: &str) -> Option<(&str, &str)> {
    metadata.strip_prefix(BEFORE_HASH)?.strip_suffix('}')?.split_once(BEFORE_ABOUT)
}

fn content_hash(about: &str, file: &SafeTensors<'_>) -> ContentHash {
    checksum(about, &file.tensors().into_iter().collect::<BTreeMap<String, _>>())
}

/// For tests only: the file's `bytes` with the checksum of what they hold, if they are such a file but for that.
pub(crate) fn resealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let (found, about) = hash_and_about(header.metadata().as_ref()?.get(KEY)?)?;
    let hash = content_hash(about, &file).to_string();
    let at = bytes.windows(found.len()).position(|window| window == found.as_bytes())?;
    (found.len() == hash.len()).then(|| [&bytes[..at], hash.as_bytes(), &bytes[at + hash.len()..]].concat())
}

fn checksum<'a, V: View + 'a>(about: &str, tensors: impl IntoIterator<Item = (&'a String, &'a V)>) -> ContentHash {
    let mut parts: Vec<Vec<u8>> = vec![about.as_bytes().to_vec()];
    for (name, tensor) in tensors {
        parts.push(format!("{name} {:?} {:?}", tensor.dtype(), tensor.shape()).into_bytes());
        parts.push(tensor.data().into_owned());
    }
    ContentHash::of_parts(parts.iter().map(Vec::as_slice))
}
