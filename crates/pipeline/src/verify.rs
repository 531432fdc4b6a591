//! Reads everything again and compares it with its recorded hash.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rayon::prelude::*;
use serde::Serialize;
use shards::{Manifest, shard_path};
use stage::ContentHash;
use vit::MODEL_FILE;

use crate::{Context, evaluation, extraction::Extraction, progress, runs, summary};

/// What was read.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Files read.
    pub files: usize,
    /// Their size.
    pub size_bytes: u64,
    /// Images whose bytes were read again.
    pub images: usize,
    /// Damaged files: which, and what is wrong.
    pub damaged: Vec<String>,
}

/// Reads all images, the shards of the current features, all trained models and evaluations.
pub fn run(context: &Context) -> Result<Verification> {
    let images = &context.dataset.images;
    let bar = progress::bar(context.show_progress, images.len() as u64, "images", "files");
    let mut damaged: Vec<String> = (0..images.len())
        .into_par_iter()
        .filter_map(|index| {
            bar.inc(1);
            context.dataset.decode(index).err().map(|error| {
                // The next command reads it again, and sees what is to be made anew.
                error.path().into_iter().for_each(|path| context.memo.forget(path));
                summary::without_hint(&error.to_string())
            })
        })
        .collect();
    bar.finish_and_clear();

    let mut files: Vec<(PathBuf, ContentHash)> = Vec::new();
    for Extraction { cache, .. } in Extraction::plan_all(context)? {
        let Some(manifest) = Manifest::read(&cache.folder)? else { continue };
        for (source, entry) in &manifest.features {
            let shards = entry.shards.iter();
            files.extend(shards.map(|(number, shard)| (shard_path(&cache.folder, *source, *number), shard.blake3)));
        }
    }
    for combination in sources::Combination::all() {
        for folder in runs::trained_below(&context.paths.runs_of(combination)) {
            files.extend(runs::read_trained(&folder).map(|trained| (folder.join(MODEL_FILE), trained.model)));
            files.extend(evaluation::read(&folder).iter().flat_map(|found| evaluation::answers(&folder, found)));
        }
    }
    let sizes: Vec<u64> = files.iter().map(|(path, _)| std::fs::metadata(path).map_or(0, |file| file.len())).collect();
    let bar = progress::bar(context.show_progress, files.len() as u64, "shards, models, evaluations", "files");
    for (path, expected) in &files {
        damaged.extend(check(context, path, expected));
        bar.inc(1);
    }
    bar.finish_and_clear();
    context.memo.save()?;
    Ok(Verification { files: files.len(), size_bytes: sizes.iter().sum(), images: images.len(), damaged })
}

/// Fails if anything is damaged, after all has been reported.
pub fn require_sound(verification: &Verification) -> Result<()> {
    if !verification.damaged.is_empty() {
        bail!(
            "{} files are damaged\n\nhint: mend damaged images; then run `just extract`, `just train` and `just eval`, which \
             make anew what else is damaged",
            verification.damaged.len()
        );
    }
    Ok(())
}

fn check(context: &Context, path: &Path, expected: &ContentHash) -> Option<String> {
    // Whatever is remembered, the content counts; what is found is remembered for the next command.
    context.memo.forget(path);
    match context.memo.hash_file(path) {
        Ok(hash) if hash == *expected => None,
        Ok(hash) => {
            Some(format!("`{}` has content hash {}, expected {}", path.display(), hash.short(), expected.short()))
        }
        Err(error) => Some(error.to_string()),
    }
}
