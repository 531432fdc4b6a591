//! The plan on disk, one line per image, with the hash of all of it at its end:
//!
//! ```text
//! shard
//! 5c1f…  train  FER2013Train/fer0000000.png
//! 09ab…  other  FER2013Valid/fer0000001.png
//! shard
//! ```

use std::{fmt::Write as _, path::Path};

use sources::Source;
use stage::{ContentHash, read_sealed_lines, write_sealed_lines};

use crate::{Plan, PlannedImage, PlannedShard, ShardError, header::ShardHeader, record::shard_numbers, shard_path};

/// The line that opens a shard.
const SHARD: &str = "shard";

/// What stands between an image's hash and its name.
const TRAIN: &str = "  train  ";
const OTHER: &str = "  other  ";

const HASH_DIGITS: usize = 64;

impl Plan {
    /// The plan's file name.
    pub const FILE: &str = "plan";

    /// Reads the plan of `cache` that was begun last, with its digest; none if there is none.
    pub fn read(cache: &Path) -> Result<Option<(Self, ContentHash)>, ShardError> {
        let mut plan = Lines::default();
        let digest = read_sealed_lines(&cache.join(Self::FILE), |line| plan.add(line))?;
        Ok(digest.map(|digest| (Self::of(plan.shards), digest)))
    }

    /// Writes the plan to `cache`: the first thing that an extraction does.
    pub fn write(&self, cache: &Path) -> Result<(), ShardError> {
        Ok(write_sealed_lines(&cache.join(Self::FILE), self.lines())?)
    }

    /// Identifies the plan: what a manifest says of it.
    pub fn digest(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        self.lines().for_each(|lines| _ = hasher.update(lines.as_bytes()));
        ContentHash::from_hasher(&hasher)
    }

    /// What the shards of `cache` say of a plan that is lost: each names its images. Their contents and splits must be asked of
    /// the data set, which [`Plan::update`] does.
    pub fn recover(cache: &Path) -> Self {
        let names = |source: Source, shard: usize| ShardHeader::read(&shard_path(cache, source, shard)).ok()?.ids();
        let unknown = ContentHash::of(b"");
        let shard = |number| {
            let ids = Source::FEATURE_MAPS.into_iter().find_map(|source| names(source, number)).unwrap_or_default();
            ids.iter().map(|id| PlannedImage { id, train: false, hash: unknown }).collect()
        };
        let count = Source::FEATURE_MAPS.into_iter().flat_map(|source| shard_numbers(cache, source)).max();
        Self::of((0..count.map_or(0, |last| last + 1)).map(shard).collect())
    }

    /// The lines of each shard.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        const BYTES_PER_IMAGE: usize = 128;
        self.shards().iter().map(|shard| {
            let mut lines = String::with_capacity(shard.len() * BYTES_PER_IMAGE);
            lines.push_str(SHARD);
            lines.push('\n');
            for PlannedImage { id, train, hash } in shard.images() {
                let part = if train { TRAIN } else { OTHER };
                // Writing to a string cannot fail.
                let _ = writeln!(lines, "{hash}{part}{id}");
            }
            lines
        })
    }
}

/// A plan as far as its lines have been read.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) shards: Vec<PlannedShard>,
}

impl Lines {
    /// Takes the next line.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), String> {
        if line == SHARD {
            self.shards.push(PlannedShard::default());
            return Ok(());
        }
        let image = parse_image(line).ok_or("a line is neither `shard` nor a hash, train or other, and a name")?;
        let shard = self.shards.last_mut().ok_or("an image stands before the first `shard`")?;
        shard.push(image).ok_or("a shard has names of more than 4 GiB")?;
        Ok(())
    }
}

fn parse_image(line: &str) -> Option<PlannedImage<'_>> {
    let (hash, rest) = line.split_at_checked(HASH_DIGITS)?;
    let (train, id) = match rest.strip_prefix(TRAIN) {
        Some(id) => (true, id),
        None => (false, rest.strip_prefix(OTHER)?),
    };
    Some(PlannedImage { id, train, hash: hash.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let image = |id, train| PlannedImage { id, train, hash: ContentHash::of(b"content") };
        let shard = |images: &[PlannedImage<'static>]| images.iter().copied().collect();
        let odd = [image("a  b.png", true), image("", false), image("c\r", false)];
        let plan = Plan::of(vec![shard(&odd), shard(&[]), shard(&[image("d,\"e", true)])]);
        assert!(Plan::read(folder.path()).unwrap().is_none());
        plan.write(folder.path()).unwrap();
        assert_eq!(Plan::read(folder.path()).unwrap().unwrap(), (plan.clone(), plan.digest()));
        assert_ne!(plan.digest(), Plan::of(plan.shards()[..2].to_vec()).digest());
    }

    #[test]
    fn other_lines_are_no_plan() {
        let image = format!("{}  train  a", ContentHash::of(b""));
        for lines in [&["one"][..], &[&image], &[SHARD, &image.replace("train", "valid")], &[SHARD, "x  train  a"]] {
            let mut plan = Lines::default();
            assert!(lines.iter().any(|line| plan.add(line).is_err()), "{lines:?}");
        }
    }
}
