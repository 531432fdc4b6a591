//! Removes what no current configuration uses.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::Serialize;
use sources::Combination;
use stage::{Lock, LockError, TEMPORARY_PREFIX, is_abandoned};

use study::Paths;

use crate::{Context, examples::Examples, extraction::Extraction, features::Features, runs::Configuration};

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
    let contexts = || variants.iter().copied().chain([study]);
    let mut caches = HashSet::new();
    for context in contexts() {
        caches.extend(Extraction::plan_all(context)?.into_iter().map(|extraction| extraction.cache.folder));
    }
    let opened = contexts().map(|context| {
        let examples = Examples::new(context);
        Ok((context, Features::open(context, &examples)?, examples))
    });
    // Without features nobody can say which runs are current: none is judged then.
    let opened: Result<Vec<_>> = opened.collect();
    let opened = opened.inspect_err(|error| tracing::debug!("runs are not judged: {error:#}")).unwrap_or_default();
    let configurations = opened.iter().map(|(context, features, of)| Configuration::of(context, features, of));
    let configurations: Vec<Configuration<'_>> = configurations.collect::<Result<_>>()?;

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
    for of_combination in folders(&study.paths.all_runs())? {
        for path in folders(&of_combination)? {
            match configurations.iter().map(|configuration| claim(configuration, &path)).max() {
                Some(Claim::Yes) => unfinished(&path, 1, &mut leftovers)?,
                Some(Claim::No) => push(path, "another configuration", &mut leftovers)?,
                Some(Claim::Unknown) | None => {}
            }
        }
    }
    Ok(Leftovers { leftovers })
}

/// Whether a run is of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    No,
    Unknown,
    Yes,
}

/// Whether the run in `folder` is of `configuration`, whatever `combo` and the seeds say; unknown if its features are not there.
fn claim(configuration: &Configuration<'_>, folder: &Path) -> Claim {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let combination = folder.parent().and_then(|of| name(of)?.parse::<Combination>().ok());
    let Some(combination) = combination else { return Claim::No };
    if !configuration.has_features_of(combination) {
        return Claim::Unknown;
    }
    let run = name(folder).and_then(|name| configuration.run(combination, Paths::seed(&name)?).ok());
    if run.is_some_and(|run| run.folder == folder) { Claim::Yes } else { Claim::No }
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
