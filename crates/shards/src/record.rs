use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sources::Source;
use stage::{read_sound_json, write_sealed_json};

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
        let record: Option<Self> = read_sound_json(&record_path(cache, source, shard), "its shard is made anew");
        record.filter(|record| record.fits(source))
    }

    /// The number of the shard whose record has this file name; none if no record has it.
    pub fn number(name: &str) -> Option<usize> {
        number_before(RECORD_ENDING, name)
    }

    /// Whether it is a record of this version, of a shard of `source`.
    pub(crate) fn fits(&self, source: Source) -> bool {
        self.format == FORMAT_VERSION && self.sums.channels() == source.channels()
    }

    pub(crate) fn write(&self, cache: &Path, source: Source, shard: usize) -> io::Result<()> {
        write_sealed_json(&record_path(cache, source, shard), self)
    }
}

/// The file of a shard.
pub fn shard_path(cache: &Path, source: Source, shard: usize) -> PathBuf {
    cache.join(source.name()).join(format!("{shard:05}{SHARD_ENDING}"))
}

/// The file of a shard's record.
pub fn record_path(cache: &Path, source: Source, shard: usize) -> PathBuf {
    cache.join(source.name()).join(format!("{shard:05}{RECORD_ENDING}"))
}

const SHARD_ENDING: &str = ".safetensors";
const RECORD_ENDING: &str = ".record.json";

/// No plan has as many shards: a file whose name says so is none of ours.
const MOST_SHARDS: usize = 1 << 20;

/// The numbers of the shards of `source` that are there, in no order.
pub(crate) fn shard_numbers(cache: &Path, source: Source) -> Vec<usize> {
    let entries = std::fs::read_dir(cache.join(source.name())).into_iter().flatten().flatten();
    entries.filter_map(|entry| number_before(SHARD_ENDING, entry.file_name().to_str()?)).collect()
}

/// The number of a shard that a file's `name` has before its `ending`.
fn number_before(ending: &str, name: &str) -> Option<usize> {
    name.strip_suffix(ending)?.parse().ok().filter(|number| *number < MOST_SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_claims_to_be_the_last_of_endless_shards_is_none() {
        let cache = tempfile::tempdir().unwrap();
        fs_err::create_dir(cache.path().join("fm4")).unwrap();
        for number in ["00003", "1048576", "18446744073709551615"] {
            fs_err::write(cache.path().join(format!("fm4/{number}.safetensors")), b"").unwrap();
        }
        assert_eq!(shard_numbers(cache.path(), Source::Fm4), [3]);
    }
}
