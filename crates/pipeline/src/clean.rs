//! Removes what no current configuration uses.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::Serialize;
use sources::{Combination, Source};
use stage::{Fingerprint, Lock, LockError, TEMPORARY_PREFIX, is_abandoned};

use crate::{Context, examples::Examples, extraction::Extraction, features::Features, runs};

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
/// What the study or one of its `variants` uses is none, whatever `combo`, `seed` and the study's combinations and seeds are: a run that
/// differs in these only is as good as the others, and hours of training.
pub fn leftovers(study: &Context, variants: &[&Context]) -> Result<Leftovers> {
    let (mut caches, mut configurations) = (HashSet::new(), Vec::new());
    let mut runs_can_be_judged = true;
    for context in variants.iter().copied().chain([study]) {
        caches.extend(Extraction::plan_all(context)?.into_iter().map(|extraction| extraction.cache.folder));
        // Without features nobody can say which runs are current.
        match Configuration::of(context) {
            Ok(configuration) => configurations.push(configuration),
            Err(error) => {
                tracing::debug!("runs are not judged: {error:#}");
                runs_can_be_judged = false;
            }
        }
    }

    let mut leftovers = Vec::new();
    for folder in [study.paths.cache(), study.paths.data_set(), study.paths.report()] {
        unfinished(folder, 0, &mut leftovers)?;
    }
    for path in folders(&study.paths.all_features())? {
        if caches.contains(&path) {
            unfinished(&path, 1, &mut leftovers)?;
        } else {
            push(path, "other weights, engine, precision, view, dtype or numerics", &mut leftovers)?;
        }
    }
    for of_combination in folders(&study.paths.all_runs())?.into_iter().filter(|_| runs_can_be_judged) {
        for path in folders(&of_combination)? {
            match configurations.iter().map(|configuration| configuration.claims(&path)).max() {
                Some(Claim::Yes) => unfinished(&path, 1, &mut leftovers)?,
                // Its features are not there.
                Some(Claim::Unknown) => {}
                Some(Claim::No) | None => push(path, "another configuration", &mut leftovers)?,
            }
        }
    }
    Ok(Leftovers { leftovers })
}

/// What makes runs those of a configuration.
struct Configuration<'a> {
    context: &'a Context,
    features: Features,
    shared: Fingerprint,
}

/// Whether a run is of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    No,
    Unknown,
    Yes,
}

impl<'a> Configuration<'a> {
    fn of(context: &'a Context) -> Result<Self> {
        let examples = Examples::new(context);
        let features = Features::open(context, &examples)?;
        Ok(Self { context, features, shared: runs::shared_fingerprint(context, &examples)? })
    }

    fn claims(&self, folder: &Path) -> Claim {
        let combination = folder.parent().and_then(|of| of.file_name()?.to_str()?.parse::<Combination>().ok());
        let Some(combination) = combination else { return Claim::No };
        if combination.iter().any(|source| source != Source::Orig && !self.features.has(source)) {
            return Claim::Unknown;
        }
        let Self { context, features, shared } = self;
        if runs::is_of_current_configuration(context, features, shared, combination, folder) {
            Claim::Yes
        } else {
            Claim::No
        }
    }
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

fn push(path: PathBuf, reason: &str, leftovers: &mut Vec<Leftover>) -> Result<()> {
    let size_bytes = size(&path)?;
    leftovers.push(Leftover { path, size_bytes, reason: reason.to_owned() });
    Ok(())
}

/// Unfinished files in `folder` and, down to `depth` levels, below, that belong to no process any more.
fn unfinished(folder: &Path, depth: usize, leftovers: &mut Vec<Leftover>) -> Result<()> {
    for path in entries(folder)? {
        let is_unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX));
        if path.is_dir() && depth > 0 {
            unfinished(&path, depth - 1, leftovers)?;
        } else if is_unfinished && is_abandoned(&path) {
            push(path, "left unfinished", leftovers)?;
        }
    }
    Ok(())
}

fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// What lies in `folder`, sorted by name; nothing if there is no such folder.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs_err::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn size(path: &Path) -> io::Result<u64> {
    let metadata = fs_err::symlink_metadata(path)?;
    if metadata.is_dir() { entries(path)?.iter().map(|inner| size(inner)).sum() } else { Ok(metadata.len()) }
}
