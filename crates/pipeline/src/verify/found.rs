//! What lies in a data set's folder of the cache, and by what each file is judged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use shards::{Manifest, Plan, ShardRecord, shard_path};
use sources::Source;
use stage::ContentHash;
use vit::CHECKPOINT_FILE;

use crate::{clean::entries, evaluation, runs};

/// Files, and folders that cannot be looked into.
#[derive(Default)]
pub(super) struct Found {
    /// Files whose hashes stand elsewhere: shards, models, metrics, answers.
    pub(super) known: BTreeMap<PathBuf, ContentHash>,
    /// Files that tell themselves whether they are sound.
    pub(super) own: Vec<PathBuf>,
    /// What is wrong with folders.
    pub(super) faults: Vec<String>,
}

impl Found {
    /// All that lies below `folder`, whatever configuration made it, but for what lies in `except`.
    pub(super) fn below(folder: &Path, except: &Path) -> Self {
        let mut found = Self::default();
        found.add(folder, except);
        found
    }

    fn add(&mut self, folder: &Path, except: &Path) {
        let paths = match entries(folder) {
            Ok(paths) => paths,
            Err(error) => return self.faults.push(error.to_string()),
        };
        for path in paths {
            if path.is_dir() {
                if path != except {
                    self.add(&path, except);
                }
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match name {
                Manifest::FILE => self.add_shards(folder),
                runs::TRAIN_FILE => {
                    let trained = runs::read_trained(folder);
                    let files = trained.iter().flat_map(runs::Trained::files);
                    self.known.extend(files.map(|(name, hash)| (folder.join(name), hash)));
                }
                evaluation::FILE => {
                    let run = folder.parent().unwrap_or(folder);
                    self.known.extend(evaluation::read(run).iter().flat_map(|found| evaluation::answers(run, found)));
                }
                _ => self.add_recorded(folder, name),
            }
            if name.ends_with(".json") || name == Plan::FILE || name == CHECKPOINT_FILE {
                self.own.push(path);
            }
        }
    }

    /// The shards that a manifest names, unless another plan was begun since: an extraction goes on then that will write another manifest,
    /// and its records know what is there.
    fn add_shards(&mut self, cache: &Path) {
        let Ok(Some(manifest)) = Manifest::read(cache) else { return };
        if matches!(Plan::read(cache), Ok(Some((_, digest))) if digest != manifest.plan) {
            return;
        }
        for (source, feature) in manifest.features {
            for (shard, entry) in feature.shards {
                self.known.entry(shard_path(cache, source, shard)).or_insert(entry.blake3);
            }
        }
    }

    /// The shard that a record in `folder` is of, if `name` is that of a record.
    fn add_recorded(&mut self, folder: &Path, name: &str) {
        let shard = ShardRecord::number(name);
        let source = folder.file_name().and_then(|name| name.to_str()?.parse::<Source>().ok());
        let (Some(shard), Some(source), Some(cache)) = (shard, source, folder.parent()) else { return };
        if let Some(record) = ShardRecord::read(cache, source, shard) {
            self.known.insert(shard_path(cache, source, shard), record.shard.blake3);
        }
    }
}
