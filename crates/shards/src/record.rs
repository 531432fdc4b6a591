use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sources::Source;
use stage::{read_sealed_json, write_sealed_json};

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
        let record = read_sealed_json::<Self>(&record_path(cache, source, shard)).unwrap_or_else(|error| {
            tracing::warn!("{error}; its shard is made anew");
            None
        });
        record.filter(|record| record.format == FORMAT_VERSION)
    }

    pub(crate) fn write(&self, cache: &Path, source: Source, shard: usize) -> io::Result<()> {
        write_sealed_json(&record_path(cache, source, shard), self)
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

/// The numbers of the shards of `source` that are there, in no order.
pub(crate) fn shard_numbers(cache: &Path, source: Source) -> Vec<usize> {
    let entries = std::fs::read_dir(cache.join(source.name())).into_iter().flatten().flatten();
    let number = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".safetensors")?.parse().ok();
    entries.filter_map(|entry| number(entry.path())).collect()
}
