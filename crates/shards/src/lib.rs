//! The feature cache: what the backbone pass leaves behind, and what every later run reads.
//!
//! # On disk
//! ```text
//! CACHE/
//!   plan                       which image lies in which shard, at which place; written first
//!   fm2/00007.safetensors      one tensor `features`: (images, side, side, channels), channels-last
//!   fm2/00007.record.json      written after its shard: content hash, size, images, sums for the moments
//!   manifest.json              written last: shapes, dtypes, mean and std per channel, hashes, fingerprint, digest of the plan
//! ```
//! A shard holds one feature map of (by default) 256 images, so that asking for another feature writes only that
//! one's files. A shard is complete when its record names its images by their content hashes; an interrupted
//! extraction goes on at the first shard without one. Images keep their place: a changed image makes its own
//! shard stale, a new one goes behind the last.
//!
//! Files are read by positioned reads, not mapped: a truncated file is then an error instead of a signal that
//! kills the process, network mounts stay fast, and nothing needs `unsafe`. The one copy that a mapping would
//! save is some 20 µs per image, under 2% of a small training step.

mod dtype;
mod encoded;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod manifest;
mod moments;
mod plan;
mod plan_file;
mod planned_shard;
mod positioned;
mod reader;
mod record;
mod writer;

pub use dtype::Dtype;
pub use encoded::EncodedMap;
pub use error::ShardError;
pub use manifest::{FeatureEntry, Manifest, ShardEntry};
pub use moments::{ChannelSums, MeanStd, Moments};
pub use plan::{Images, Place, Plan};
pub use planned_shard::{PlannedImage, PlannedShard};
pub use reader::FeatureReader;
pub use record::{ShardRecord, record_path, shard_path};
pub use writer::ShardWriter;

/// Version of the cache's format. A cache of another version is not read; it lies in another folder.
pub const FORMAT_VERSION: u32 = 2;
