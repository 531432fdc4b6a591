//! The plan on disk, one line per image, with the hash of all of it at its end:
//!
//! ```text
//! shard
//! 5c1f…  train  FER2013Train/fer0000000.png
//! 09ab…  other  FER2013Valid/fer0000001.png
//! shard
//! ```

use std::{fmt::Write as _, path::Path};

use rayon::prelude::*;
use sources::Source;
use stage::{ContentHash, read_sealed_lines, write_sealed_lines};

use crate::{Plan, PlannedImage, ShardError, header::ShardHeader, record::shard_numbers, shard_path};

/// The line that opens a shard.
const SHARD: &str = "shard";

impl Plan {
    /// The plan's file name.
    pub const FILE: &str = "plan";

    /// Reads the plan of `cache` that was begun last, with its digest; none if there is none.
    pub fn read(cache: &Path) -> Result<Option<(Self, ContentHash)>, ShardError> {
        let path = cache.join(Self::FILE);
        let Some((lines, digest)) = read_sealed_lines(&path)? else { return Ok(None) };
        let plan = parse(&lines).ok_or_else(|| ShardError::Damaged {
            path,
            reason: "a line is neither `shard` nor a hash, train or other, and a name".to_owned(),
        })?;
        Ok(Some((plan, digest)))
    }

    /// Writes the plan to `cache`: the first thing that an extraction does.
    pub fn write(&self, cache: &Path) -> Result<(), ShardError> {
        Ok(write_sealed_lines(&cache.join(Self::FILE), self.lines().into_bytes())?)
    }

    /// Identifies the plan: what a manifest says of it.
    pub fn digest(&self) -> ContentHash {
        ContentHash::of(self.lines().as_bytes())
    }

    /// What the shards of `cache` say of a plan that is lost: each names its images. Their contents and splits must be asked of
    /// the data set, which [`Plan::update`] does.
    pub fn recover(cache: &Path) -> Self {
        let names = |source: Source, shard: usize| ShardHeader::read(&shard_path(cache, source, shard)).ok()?.ids();
        let unknown = ContentHash::of(b"");
        let shard = |number| {
            let ids = Source::FEATURE_MAPS.into_iter().find_map(|source| names(source, number)).unwrap_or_default();
            ids.into_iter().map(|id| PlannedImage { id, train: false, hash: unknown }).collect()
        };
        let count = Source::FEATURE_MAPS.into_iter().flat_map(|source| shard_numbers(cache, source)).max();
        Self::of((0..count.map_or(0, |last| last + 1)).map(shard).collect())
    }

    pub(crate) fn lines(&self) -> String {
        const BYTES_PER_IMAGE: usize = 128;
        let mut lines = String::with_capacity(self.images() * BYTES_PER_IMAGE);
        for shard in self.shards() {
            lines.push_str(SHARD);
            lines.push('\n');
            for PlannedImage { id, train, hash } in shard {
                let part = if *train { "train" } else { "other" };
                // Writing to a string cannot fail.
                let _ = writeln!(lines, "{hash}  {part}  {id}");
            }
        }
        lines
    }
}

pub(crate) fn parse(lines: &str) -> Option<Plan> {
    let lines: Vec<&str> = lines.split_terminator('\n').collect();
    let mut shards = lines.split(|line| *line == SHARD);
    // Nothing stands before the first shard.
    if !shards.next()?.is_empty() {
        return None;
    }
    // Of a million images: one core takes too long.
    let shards: Vec<&[&str]> = shards.collect();
    let shards = shards.into_par_iter().map(|lines| lines.iter().map(|line| parse_image(line)).collect());
    shards.collect::<Option<_>>().map(Plan::of)
}

fn parse_image(line: &str) -> Option<PlannedImage> {
    let (hash, rest) = line.split_once("  ")?;
    let (part, id) = rest.split_once("  ")?;
    let train = match part {
        "train" => true,
        "other" => false,
        _ => return None,
    };
    Some(PlannedImage { id: id.to_owned(), train, hash: hash.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let image = |id: &str, train| PlannedImage { id: id.to_owned(), train, hash: ContentHash::of(id.as_bytes()) };
        let odd = [image("a  b.png", true), image("", false), image("c\r", false)];
        let plan = Plan::of(vec![odd.to_vec(), vec![], vec![image("d,\"e", true)]]);
        assert!(Plan::read(folder.path()).unwrap().is_none());
        plan.write(folder.path()).unwrap();
        assert_eq!(Plan::read(folder.path()).unwrap().unwrap(), (plan.clone(), plan.digest()));
        assert_ne!(plan.digest(), Plan::of(plan.shards()[..2].to_vec()).digest());
    }

    #[test]
    fn other_lines_are_no_plan() {
        let hash = ContentHash::of(b"");
        for lines in
            ["one\n", &format!("{hash}  train  a\n"), &format!("shard\n{hash}  valid  a\n"), "shard\nx  train  a\n"]
        {
            assert!(parse(lines).is_none(), "{lines}");
        }
    }
}
