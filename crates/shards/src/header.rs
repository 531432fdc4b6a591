use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use serde::Deserialize;
use sources::Source;

use crate::{Dtype, ShardError, positioned::read_exact_at};

/// The tensor's name in a shard.
pub(crate) const TENSOR: &str = "features";

/// The key of our own metadata in a shard's header.
pub(crate) const METADATA_KEY: &str = "fmstudy";

/// A header is shorter than this with any number of images that a shard may have; a longer one is damage, not a reason to
/// allocate.
const LONGEST_HEADER_BYTES: u64 = 1 << 24;

/// What a shard's file says of itself: <https://github.com/huggingface/safetensors#format>.
#[derive(Debug)]
pub(crate) struct ShardHeader {
    path: PathBuf,
    metadata: Metadata,
    /// Where the tensors' values begin in the file.
    values_start: u64,
    file_bytes: u64,
}

impl ShardHeader {
    pub(crate) fn read(path: &Path) -> Result<Self, ShardError> {
        let damaged = |reason: String| ShardError::Damaged { path: path.to_owned(), reason };
        let file = fs_err::File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut length = [0; 8];
        read_exact_at(file.file(), &mut length, 0).map_err(|error| damaged(error.to_string()))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER_BYTES || length > file_bytes {
            return Err(damaged(format!("its header claims {length} bytes")));
        }
        let mut json = vec![0; length as usize];
        read_exact_at(file.file(), &mut json, 8).map_err(|error| damaged(error.to_string()))?;
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { path: path.to_owned(), metadata, values_start: 8 + length, file_bytes })
    }

    /// Where the first image's values begin in the file, if it holds `images` maps of `source` as `dtype`.
    pub(crate) fn values_start(&self, source: Source, dtype: Dtype, images: usize) -> Result<u64, ShardError> {
        let damaged = |reason: String| ShardError::Damaged { path: self.path.clone(), reason };
        let info = self.metadata.info(TENSOR).ok_or_else(|| damaged(format!("it has no tensor `{TENSOR}`")))?;
        let expected = [images, source.side(), source.side(), source.channels()];
        if info.shape != expected || info.dtype != dtype.safetensors() {
            return Err(ShardError::Unexpected {
                path: self.path.clone(),
                what: "tensor",
                got: format!("{:?} {:?}", info.dtype, info.shape),
                expected: format!("{:?} {expected:?}", dtype.safetensors()),
            });
        }
        let values_bytes = images as u64 * (source.values_per_image() * dtype.size_bytes()) as u64;
        let start = self.values_start.checked_add(info.data_offsets.0 as u64);
        start.filter(|start| start.checked_add(values_bytes).is_some_and(|end| end <= self.file_bytes)).ok_or_else(
            || damaged(format!("its {} bytes do not hold the values that its header speaks of", self.file_bytes)),
        )
    }

    /// The images' names in their order; none if it does not tell.
    pub(crate) fn ids(&self) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct Ours {
            ids: Vec<String>,
        }
        let ours = self.metadata.metadata().as_ref()?.get(METADATA_KEY)?;
        serde_json::from_str(ours).ok().map(|ours: Ours| ours.ids)
    }
}
