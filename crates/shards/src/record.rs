use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sources::Source;
use stage::write_json;

use crate::{ChannelSums, FORMAT_VERSION, ShardEntry};

/// What is known of a complete shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Version of the format.
    pub format: u32,
    /// The shard, as it will stand in the manifest.
    pub shard: ShardEntry,
    /// Sums over its training images.
    pub sums: ChannelSums,
}

impl ShardRecord {
    /// The record of a shard, if there is a readable one of this version. A damaged record counts as none:
    /// its shard is then made anew.
    pub fn read(cache: &Path, source: Source, shard: usize) -> Option<Self> {
        let bytes = std::fs::read(record_path(cache, source, shard)).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.format == FORMAT_VERSION).then_some(record)
    }

    pub(crate) fn write(&self, cache: &Path, source: Source, shard: usize) -> io::Result<()> {
        write_json(&record_path(cache, source, shard), self)
    }
}

/// The file of a shard.
pub fn shard_path(cache: &Path, source: Source, shard: usize) -> PathBuf {
    cache.join(source.name()).join(format!("{shard:05}.safetensors"))
}

/// The file of a shard's record.
pub fn record_path(cache: &Path, source: Source, shard: usize) -> PathBuf {
    cache.join(source.name()).join(format!("{shard:05}.record.json"))
}
