use std::{collections::HashMap, io::Write, path::Path};

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use sources::Source;
use stage::{ContentHash, HashMemo, LargeFile};

use crate::{
    ChannelSums, Dtype, EncodedMap, FORMAT_VERSION, Plan, PlannedShard, ShardEntry, ShardError, ShardRecord,
    header::{METADATA_KEY, TENSOR},
    record_path, shard_path,
};

/// Data begins at a multiple of this, so that a reader may map it as any dtype.
const ALIGNMENT: usize = 64;

/// Writes one shard, image by image, in constant memory: the header goes first, since the number of images
/// is known, and the content hash is taken on the way.
#[derive(Debug)]
pub struct ShardWriter<'a> {
    cache: &'a Path,
    source: Source,
    shard: usize,
    dtype: Dtype,
    images: &'a PlannedShard,
    images_digest: ContentHash,
    file: LargeFile,
    hasher: blake3::Hasher,
    written: usize,
    sums: ChannelSums,
}

impl<'a> ShardWriter<'a> {
    /// Starts shard `shard` of `plan`. An old record is removed first: from here on the shard is incomplete.
    pub fn create(
        cache: &'a Path,
        plan: &'a Plan,
        shard: usize,
        source: Source,
        dtype: Dtype,
    ) -> Result<Self, ShardError> {
        let old = record_path(cache, source, shard);
        if old.exists() {
            fs_err::remove_file(old)?;
        }
        let images = &plan.shards()[shard];
        let mut writer = Self {
            cache,
            source,
            shard,
            dtype,
            images,
            images_digest: images.digest(),
            file: LargeFile::create(&shard_path(cache, source, shard))?,
            hasher: blake3::Hasher::new(),
            written: 0,
            sums: ChannelSums::new(source.channels()),
        };
        let header = writer.header()?;
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends the feature map of the next image in the plan.
    pub fn push(&mut self, map: &EncodedMap) -> Result<(), ShardError> {
        let image = self.images.image(self.written);
        let expected = self.source.values_per_image() * self.dtype.size_bytes();
        if let Some(value) = map.not_finite {
            return Err(ShardError::NotFinite {
                feature: self.source.to_string(),
                image: image.id.to_owned(),
                value,
                dtype: self.dtype.to_string(),
            });
        }
        if map.bytes.len() != expected {
            return Err(ShardError::Unexpected {
                path: shard_path(self.cache, self.source, self.shard),
                what: "bytes of a map",
                got: map.bytes.len().to_string(),
                expected: expected.to_string(),
            });
        }
        if image.train {
            self.sums.merge(&map.sums);
        }
        self.written += 1;
        self.write(&map.bytes)
    }

    /// Whether all images are there.
    pub const fn is_complete(&self) -> bool {
        self.written == self.images.len()
    }

    /// Makes the shard appear, then its record. `memo` remembers the content hash.
    pub fn finish(self, memo: &HashMemo) -> Result<ShardRecord, ShardError> {
        let path = shard_path(self.cache, self.source, self.shard);
        if !self.is_complete() {
            return Err(ShardError::Unexpected {
                path,
                what: "images",
                got: self.written.to_string(),
                expected: self.images.len().to_string(),
            });
        }
        let size_bytes = self.file.size_bytes();
        self.file.commit()?;
        let record = ShardRecord {
            format: FORMAT_VERSION,
            shard: ShardEntry {
                images: self.images.len(),
                images_digest: self.images_digest,
                size_bytes,
                blake3: ContentHash::from_hasher(&self.hasher),
            },
            sums: self.sums,
        };
        memo.remember(&path, record.shard.blake3)?;
        record.write(self.cache, self.source, self.shard)?;
        memo.hash_written(&record_path(self.cache, self.source, self.shard))?;
        Ok(record)
    }

    /// Length, JSON, spaces up to the alignment: <https://github.com/huggingface/safetensors#format>.
    /// All of our own metadata is one JSON text under one key: safetensors keeps the keys in a hash map, so
    /// several would be written in a different order every time.
    fn header(&self) -> Result<Vec<u8>, ShardError> {
        let side = self.source.side();
        let shape = vec![self.images.len(), side, side, self.source.channels()];
        let size_bytes = self.images.len() * self.source.values_per_image() * self.dtype.size_bytes();
        let info = TensorInfo { dtype: self.dtype.safetensors(), shape, data_offsets: (0, size_bytes) };
        let ours = json!({
            "format": FORMAT_VERSION,
            "feature": self.source,
            "layout": "NHWC",
            "images_digest": self.images_digest,
            "ids": self.images.images().map(|image| image.id).collect::<Vec<_>>(),
        });
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), ours.to_string())]);
        let damaged =
            |reason: String| ShardError::Damaged { path: shard_path(self.cache, self.source, self.shard), reason };
        let metadata =
            Metadata::new(Some(metadata), vec![(TENSOR.to_owned(), info)]).map_err(|e| damaged(e.to_string()))?;
        let mut json = serde_json::to_vec(&metadata).map_err(|e| damaged(e.to_string()))?;
        let length = (8 + json.len()).next_multiple_of(ALIGNMENT) - 8;
        json.resize(length, b' ');
        let mut header = (length as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(header)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ShardError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        Ok(())
    }
}
