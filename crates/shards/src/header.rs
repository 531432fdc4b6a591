use std::{
    io,
    path::{Path, PathBuf},
};

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
        let read = |buffer: &mut [u8], offset| read_exact_at(file.file(), buffer, offset);
        Self::parse(path, file_bytes, read).map_err(damaged)
    }

    /// The same of a file of `file_bytes` that `read` fills buffers from; what is wrong with it if it is damaged.
    pub(crate) fn parse(
        path: &Path,
        file_bytes: u64,
        read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> Result<Self, String> {
        let mut length = [0; 8];
        read(&mut length, 0).map_err(|error| error.to_string())?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER_BYTES || length > file_bytes {
            return Err(format!("its header claims {length} bytes"));
        }
        let mut json = vec![0; length as usize];
        read(&mut json, 8).map_err(|error| error.to_string())?;
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
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
        let map_bytes = (source.values_per_image() * dtype.size_bytes()) as u64;
        let start = self.values_start.checked_add(info.data_offsets.0 as u64);
        let end =
            (images as u64).checked_mul(map_bytes).zip(start).and_then(|(values, start)| start.checked_add(values));
        start.filter(|_| end.is_some_and(|end| end <= self.file_bytes)).ok_or_else(|| {
            damaged(format!("its {} bytes do not hold the values that its header speaks of", self.file_bytes))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAP_BYTES: u64 = 7 * 7 * 512 * 2;

    /// A header of as many maps of FM4, whose values are said to take `value_bytes`, in a file of `file_bytes` more.
    fn header(images: u64, value_bytes: u64, file_bytes: u64) -> Result<(ShardHeader, u64), String> {
        let shape = [images, 7, 7, 512];
        let json = format!(r#"{{"features":{{"dtype":"F16","shape":{shape:?},"data_offsets":[0,{value_bytes}]}}}}"#);
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let read = |buffer: &mut [u8], offset: u64| {
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        };
        let start = bytes.len() as u64;
        ShardHeader::parse(Path::new("00000.safetensors"), start + file_bytes, read).map(|header| (header, start))
    }

    #[test]
    fn values_beyond_the_file_are_damage() {
        let values = |file_bytes| {
            let (header, start) = header(2, 2 * MAP_BYTES, file_bytes).unwrap();
            header.values_start(Source::Fm4, Dtype::F16, 2).map(|found| found == start)
        };
        assert!(values(2 * MAP_BYTES).unwrap());
        assert!(matches!(values(2 * MAP_BYTES - 1), Err(ShardError::Damaged { .. })));
        let (header, _) = header(2, 2 * MAP_BYTES, 2 * MAP_BYTES).unwrap();
        for (dtype, images) in [(Dtype::F32, 2), (Dtype::Bf16, 2), (Dtype::F16, usize::MAX)] {
            assert!(matches!(header.values_start(Source::Fm4, dtype, images), Err(ShardError::Unexpected { .. })));
        }
    }

    #[test]
    fn shapes_beyond_all_numbers_or_their_values_are_damage() {
        for (images, value_bytes) in [(1, 0), (2, MAP_BYTES), (u64::MAX, 0), (1 << 60, u64::MAX), (1 << 49, 1 << 63)] {
            header(images, value_bytes, 2 * MAP_BYTES).unwrap_err();
        }
    }
}
