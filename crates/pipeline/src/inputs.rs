//! The files that others wrote: tables of labels and weights.
//!
//! Nothing in them says whether they are as they should be, and a flipped bit in a vote is a vote. What `extract` found them
//! to be is therefore written down, and every later command says so if they are something else.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use backbone::fetch_weights;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use stage::{ContentHash, read_sound_json, write_sealed_json};

use crate::{Context, runs};

/// Hashes of the files by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    files: BTreeMap<String, ContentHash>,
}

impl Inputs {
    /// As they are now; all of them are read.
    fn now(context: &Context) -> Result<Self> {
        let tables = context.dataset.audit.label_tables.iter().map(|table| table.path.clone());
        let weights: PathBuf = fetch_weights(&context.study.extract.weights)?;
        let hash = |path: PathBuf| Ok((path.to_string_lossy().into_owned(), ContentHash::of_file(&path)?));
        let files: Vec<PathBuf> = tables.chain([weights]).collect();
        Ok(Self { files: files.into_par_iter().map(hash).collect::<Result<_>>()? })
    }

    /// Writes down how they are now, unless that is known.
    pub(crate) fn record(context: &Context) -> Result<()> {
        let (path, mut now) = (context.paths.inputs(), Self::now(context)?);
        let known: Self = read_sound_json(&path, runs::MADE_ANEW).unwrap_or_default();
        // Other weights may be in use by other configurations.
        let others = known.files.iter().filter(|(path, _)| Path::new(path).is_file());
        let others: Vec<(String, ContentHash)> = others.map(|(path, hash)| (path.clone(), *hash)).collect();
        for (path, hash) in others {
            now.files.entry(path).or_insert(hash);
        }
        if now == known { Ok(()) } else { Ok(write_sealed_json(&path, &now)?) }
    }

    /// The files that are not what `extract` found, in words.
    pub(crate) fn changed(context: &Context) -> Result<Vec<String>> {
        let Some(known) = read_sound_json::<Self>(&context.paths.inputs(), runs::MADE_ANEW) else {
            return Ok(Vec::new());
        };
        let changes = Self::now(context)?.files.into_iter().filter_map(|(path, hash)| {
            let before = known.files.get(&path).filter(|before| **before != hash)?;
            Some(hash.instead_of(*before, Path::new(&path)))
        });
        Ok(changes.collect())
    }

    /// Says so if a file is not what `extract` found.
    pub(crate) fn warn_of_changes(context: &Context) -> Result<()> {
        for change in Self::changed(context)? {
            tracing::warn!(
                "{change} as `extract` last found it; restore it if nobody changed it, else run `just extract`, which \
                 takes it as it is"
            );
        }
        Ok(())
    }
}
