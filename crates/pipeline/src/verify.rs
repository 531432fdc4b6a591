//! Reads everything again and compares it with its recorded hash.

mod found;

use std::path::PathBuf;

use anyhow::{Result, bail};
use rayon::prelude::*;
use serde::Serialize;
use stage::check_seal;
use vit::{CHECKPOINT_FILE, Checkpoint};

use self::found::Found;
use crate::{
    Context,
    inputs::Inputs,
    progress,
    summary::{self, counted},
};

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

/// Reads all images, tables of labels and weights, and all that lies in the data set's folder of the cache, whatever configuration made it:
/// shards, small files that carry their own hash, checkpoints, trained models, evaluations. The report is made anew every time.
pub fn run(context: &Context) -> Result<Verification> {
    let mut damaged = verify_images(context);
    damaged.extend(Inputs::changed(context)?);

    let Found { known, own, faults } = Found::below(context.paths.data_set(), context.paths.report());
    damaged.extend(faults);
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    let size_bytes = known.keys().chain(&own).map(size).sum();
    let files = known.len() + own.len();
    let bar = progress::bar(context.show_progress, files as u64, "cache", "files");
    damaged.extend(own.iter().filter_map(|path| {
        bar.inc(1);
        let checked = match path.file_name()?.to_str()? {
            CHECKPOINT_FILE => Checkpoint::read(path.parent()?).map(|_| ()).map_err(anyhow::Error::from),
            _ => check_seal(path).map_err(anyhow::Error::from),
        };
        checked.err().map(|error| {
            // The next command reads it again, and sees that it is to be made anew.
            context.memo.forget(path);
            summary::without_hint(&error.to_string())
        })
    }));
    damaged.extend(known.iter().filter_map(|(path, expected)| {
        bar.inc(1);
        // Whatever is remembered, the content counts; what is found is remembered for the next command.
        context.memo.forget(path);
        context.memo.fault(path, *expected)
    }));
    bar.finish_and_clear();
    context.save_memo();
    Ok(Verification { files, size_bytes, images: context.dataset.images.len(), damaged })
}

/// The images that are damaged.
fn verify_images(context: &Context) -> Vec<String> {
    let images = &context.dataset.images;
    let bar = progress::bar(context.show_progress, images.len() as u64, "images", "files");
    let damaged = (0..images.len())
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
    damaged
}

/// Fails if anything is damaged, after all has been reported.
pub fn require_sound(verification: &Verification) -> Result<()> {
    if !verification.damaged.is_empty() {
        bail!(
            "damage to {}\n\nhint: mend damaged images; then run `just extract`, `just train` and `just eval`, which make \
             anew what else is damaged",
            counted(verification.damaged.len(), "file")
        );
    }
    Ok(())
}
