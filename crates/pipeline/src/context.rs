use std::{error::Error as _, panic::resume_unwind, thread};

use anyhow::{Context as _, Result, bail};
use backbone::Weights;
use dataset::{Dataset, DatasetError, OpenOptions};
use stage::{HashMemo, SealError, check_seal, warn_once, write_atomically, write_sealed_json};
use study::{Paths, Study};

use crate::{read_ahead::ReadAhead, selection};

/// <https://bford.info/cachedir/>: backup programs leave such folders out.
const CACHEDIR_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by fmstudy.\n";

/// What every stage works with: the configuration, the data set, the places, the remembered hashes.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub study: Study,
    /// Where results lie.
    pub paths: Paths,
    /// Remembered content hashes.
    pub memo: HashMemo,
    /// The images and their labels.
    pub dataset: Dataset,
    /// Indices of the images that take part; all of them without `extract.limit`.
    pub selected: Vec<usize>,
    /// Whether to draw progress bars.
    pub show_progress: bool,
    pub(crate) read_ahead: ReadAhead,
}

impl Context {
    /// Opens the data set and sets up the thread pool.
    pub fn open(study: Study, show_progress: bool) -> Result<Self> {
        start_threads(study.threads)?;
        let paths = Paths::new(&study);
        if !study.data.dir.is_dir() {
            bail!(
                "no data set at `{}` (data.dir)\n\nhint: unpack FERPlus there (see data/README.md), or run `just demo`",
                study.data.dir.display()
            );
        }
        let tag = paths.cache().join("CACHEDIR.TAG");
        if !tag.exists() {
            write_atomically(&tag, CACHEDIR_TAG)?;
        }
        let memo = HashMemo::open(&paths.hashes());
        let (dataset, read_ahead) = thread::scope(|scope| {
            let ahead = || {
                memo.load();
                ReadAhead::of(&study, &paths)
            };
            // Not one of the pool's: those are kept busy by the data set, and the system shares the cores out.
            let reader = thread::Builder::new().spawn_scoped(scope, ahead).context(TOO_MANY_THREADS)?;
            let dataset = open_dataset(&study, &paths, &memo);
            let read_ahead = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, anyhow::Error>((dataset?, read_ahead))
        })?;
        let selected = selection::select(&dataset, study.extract.limit);
        Ok(Self { study, paths, memo, dataset, selected, show_progress, read_ahead })
    }

    /// The configured weights, fetched if need be.
    pub(crate) fn weights(&self) -> Result<Weights> {
        self.read_ahead.weights(&self.study)
    }

    /// Whether the image at an index takes part.
    pub(crate) fn wants(&self) -> impl Fn(usize) -> bool {
        let all = self.selected.len() == self.dataset.images.len();
        move |index| all || self.selected.binary_search(&index).is_ok()
    }

    /// Leaves the image at `index` out from now on, since `error` says that it cannot be decoded, if bad input is to be
    /// left out; else fails with that error.
    pub(crate) fn leave_out(&mut self, index: usize, error: DatasetError) -> Result<()> {
        if !self.study.data.skip_bad {
            return Err(error.into());
        }
        tracing::warn!("left out: {}", self.dataset.images[index].id);
        self.dataset.remember_undecodable(index, error, self.paths.data_set())?;
        self.dataset = open_dataset(&self.study, &self.paths, &self.memo)?;
        self.selected = selection::select(&self.dataset, self.study.extract.limit);
        self.write_audit()
    }

    /// Keeps what has been learned of files' hashes, or says that it cannot: nothing but time is lost.
    pub(crate) fn save_memo(&self) {
        if let Err(error) = self.memo.save() {
            warn_once(format!("hashes are not remembered: {error}"));
        }
    }

    /// Writes the data audit.
    pub fn write_audit(&self) -> Result<()> {
        let path = self.paths.audit();
        if let Err(error @ SealError::Damaged { .. }) = check_seal(&path) {
            tracing::warn!("{error}; it is written anew");
        }
        Ok(write_sealed_json(&path, &self.dataset.audit)?)
    }
}

const TOO_MANY_THREADS: &str =
    "cannot start the threads\n\nhint: set fewer (threads=1), or raise the limits of memory and threads";

/// A second call in one process finds the pool built; the first one's size stays.
fn start_threads(threads: usize) -> Result<()> {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        // Only what the system says of a thread has a source.
        Err(error) if error.source().is_some() => Err(error).context(TOO_MANY_THREADS),
        _ => Ok(()),
    }
}

fn open_dataset(study: &Study, paths: &Paths, memo: &HashMemo) -> Result<Dataset> {
    let options = OpenOptions {
        layout: study.data.layout,
        label_source: study.data.label_source,
        skip_bad: study.data.skip_bad,
        index_dir: paths.data_set().to_owned(),
    };
    Dataset::open(&study.data.dir, &options, memo)
        .with_context(|| format!("cannot use the data set `{}`", study.data.dir.display()))
}

impl Drop for Context {
    fn drop(&mut self) {
        self.save_memo();
    }
}
