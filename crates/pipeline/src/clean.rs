//! Removes what no current configuration uses.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::Serialize;
use stage::{Lock, LockError, TEMPORARY_PREFIX, is_abandoned};

use crate::{Context, examples::Examples, extraction::Extraction, features::Features, runs, runs::Requested};

/// Something to remove.
#[derive(Clone, Debug, Serialize)]
pub struct Leftover {
    /// A folder or file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Why it is of no use.
    pub reason: String,
}

/// What there is to remove.
#[derive(Clone, Debug, Serialize)]
pub struct Leftovers {
    /// Folders and files.
    pub leftovers: Vec<Leftover>,
}

/// Feature caches and runs of other configurations, and files that killed processes left unfinished.
///
/// What the study or one of its `variants` uses is none. The configuration's own combinations and seeds count as used, with
/// `combo` and `seed` as given: runs of other combinations under the same settings are leftovers only if `study.combos`
/// does not name them.
pub fn leftovers(study: &Context, variants: &[&Context]) -> Result<Leftovers> {
    let (mut caches, mut used, mut unknown) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut runs_can_be_judged = true;
    for context in variants.iter().copied().chain([study]) {
        caches.extend(Extraction::plan_all(context)?.into_iter().map(|extraction| extraction.cache.folder));
        let examples = Examples::new(context);
        // Without features nobody can say which runs are current: neither of all, nor of those that need some.
        match Features::open(context, &examples).and_then(|features| runs::requested(context, &features, &examples)) {
            Ok(Requested { runs, blocked, .. }) => {
                used.extend(runs.into_iter().map(|run| run.folder));
                unknown.extend(blocked.into_iter().map(|combination| context.paths.runs_of(combination)));
            }
            Err(_) => runs_can_be_judged = false,
        }
    }

    let mut leftovers = Vec::new();
    for folder in [study.paths.cache(), study.paths.data_set(), study.paths.report()] {
        unfinished(folder, 0, &mut leftovers);
    }
    for path in folders(&study.paths.all_features()) {
        if caches.contains(&path) {
            unfinished(&path, 1, &mut leftovers);
        } else {
            push(path, "other weights, engine, precision, view, dtype or numerics", &mut leftovers);
        }
    }
    let combinations = if runs_can_be_judged { folders(&study.paths.all_runs()) } else { Vec::new() };
    let judged = combinations.into_iter().filter(|folder| !unknown.contains(folder));
    for path in judged.flat_map(|combination| folders(&combination)) {
        if used.contains(&path) {
            unfinished(&path, 1, &mut leftovers);
        } else {
            push(path, "another configuration", &mut leftovers);
        }
    }
    Ok(Leftovers { leftovers })
}

/// Removes them, but for those that another process is working in.
pub fn remove(leftovers: &Leftovers) -> Result<()> {
    for leftover in &leftovers.leftovers {
        if leftover.path.is_dir() {
            let lock = match Lock::acquire(&leftover.path) {
                Err(held @ (LockError::Written { .. } | LockError::Read { .. })) => {
                    tracing::warn!("{held}; it is kept");
                    continue;
                }
                lock => lock?,
            };
            fs_err::remove_dir_all(&leftover.path)?;
            drop(lock);
        } else {
            fs_err::remove_file(&leftover.path)?;
        }
    }
    Ok(())
}

fn push(path: PathBuf, reason: &str, leftovers: &mut Vec<Leftover>) {
    let size_bytes = size(&path);
    leftovers.push(Leftover { path, size_bytes, reason: reason.to_owned() });
}

/// Unfinished files in `folder` and, down to `depth` levels, below, that belong to no process any more.
fn unfinished(folder: &Path, depth: usize, leftovers: &mut Vec<Leftover>) {
    for path in entries(folder) {
        let is_unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX));
        if path.is_dir() && depth > 0 {
            unfinished(&path, depth - 1, leftovers);
        } else if is_unfinished && is_abandoned(&path) {
            push(path, "left unfinished", leftovers);
        }
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_dir()).collect()
}

/// What lies in `folder`, sorted by name.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn size(path: &Path) -> u64 {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => entries(path).iter().map(|inner| size(inner)).sum(),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}
