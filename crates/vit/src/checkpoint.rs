//! A checkpoint is one safetensors file (see `tensor_file`): `model.NAME`, `adam.mean.NAME` and
//! `adam.square.NAME` for every parameter, and a [`Checkpoint`] as JSON in the metadata.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Draws, METRICS_FILE, Model, Trainer, ValidationRecord, VitError,
    metrics::Written,
    tensor_file::{self, TensorFile},
};

/// Name of the checkpoint in a run's folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

const MODEL_PREFIX: &str = "model.";

/// Losses of how many last steps are averaged.
const RECENT_STEPS: usize = 100;

/// State of a run, apart from its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Digest of the configuration and data that the run belongs to, as the caller gave it.
    pub digest: String,
    /// How far dropout and drop-path have read their random numbers.
    pub draws: Draws,
    /// What has been done.
    pub progress: Progress,
    /// What had been recorded by then; none before the first step.
    pub metrics: Option<Written>,
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Wall-clock time spent, over all sessions, validation included.
    pub wall_s: f64,
    /// Losses of the last 100 steps, oldest first.
    pub recent_losses: Vec<f64>,
    /// Sum of all smoothed targets seen, by class.
    pub target_sums: Vec<f64>,
    /// The last validation.
    pub last_validation: Option<ValidationRecord>,
    /// The validation with the highest accuracy, the first if there are several.
    pub best_validation: Option<ValidationRecord>,
}

impl Progress {
    /// Mean training loss over the last 100 steps, or as many as there are; NaN before the first.
    pub fn recent_loss(&self) -> f64 {
        self.recent_losses.iter().sum::<f64>() / self.recent_losses.len() as f64
    }

    pub(crate) fn add_step(&mut self, step: usize, loss: f64, target_sums: &[f64]) {
        self.step = step;
        self.recent_losses.push(loss);
        if self.recent_losses.len() > RECENT_STEPS {
            self.recent_losses.remove(0);
        }
        self.target_sums.resize(target_sums.len(), 0.0);
        for (sum, new) in self.target_sums.iter_mut().zip(target_sums) {
            *sum += new;
        }
    }

    pub(crate) fn add_validation(&mut self, record: ValidationRecord) {
        let best = self.best_validation.as_ref().map_or(f64::NEG_INFINITY, |best| best.validation.accuracy);
        if record.validation.accuracy > best {
            self.best_validation = Some(record.clone());
        }
        self.last_validation = Some(record);
    }
}

/// A checkpoint with all that it is to hold, which any thread may write.
#[derive(Debug)]
pub struct DueCheckpoint {
    pub(crate) path: PathBuf,
    pub(crate) state: Checkpoint,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) metrics: File,
}

impl DueCheckpoint {
    /// Writes it, atomically.
    ///
    /// # Errors
    /// If files fail. The last checkpoint is kept.
    pub fn write(&self) -> Result<(), VitError> {
        // The metrics first: a checkpoint promises that every step before it is recorded.
        self.metrics.sync_data()?;
        tensor_file::write(&self.path, &self.state, &self.tensors)
    }
}

impl Checkpoint {
    /// Reads the checkpoint of the run in `folder`, without its tensors: which run it is, and how far. None if there is none.
    ///
    /// # Errors
    /// If it is damaged, or the metrics that belong to it are.
    pub fn read(folder: &Path) -> Result<Option<Self>, VitError> {
        let path = folder.join(CHECKPOINT_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let checkpoint: Self = tensor_file::read(&path, &Device::Cpu)?.about;
        if let Some(metrics) = &checkpoint.metrics {
            metrics.read(&folder.join(METRICS_FILE))?;
        }
        Ok(Some(checkpoint))
    }

    /// What is to be written beside this state: the tensors of `model` and `trainer`, in the processor's memory.
    pub(crate) fn tensors(model: &Model, trainer: &Trainer) -> Result<BTreeMap<String, Tensor>, VitError> {
        let mut tensors = model.tensors(MODEL_PREFIX);
        tensors.extend(trainer.moments()?);
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_device(&Device::Cpu)?;
        }
        Ok(tensors)
    }

    /// Reads the file `path` into `model` and `trainer`.
    ///
    /// # Errors
    /// If the file is damaged or belongs to another configuration than `digest`.
    pub(crate) fn restore(path: &Path, digest: &str, model: &Model, trainer: &mut Trainer) -> Result<Self, VitError> {
        Self::restore_from(tensor_file::read(path, model.device())?, path, digest, model, trainer)
    }

    pub(crate) fn restore_from(
        file: TensorFile<Self>,
        path: &Path,
        digest: &str,
        model: &Model,
        trainer: &mut Trainer,
    ) -> Result<Self, VitError> {
        let TensorFile { about, tensors } = file;
        if about.digest != digest {
            let expected = digest.to_owned();
            return Err(VitError::OtherConfiguration { path: path.to_owned(), expected, got: about.digest });
        }
        model.set_parameters(&tensors, MODEL_PREFIX, path)?;
        trainer.restore(model, &tensors, path)?;
        Ok(about)
    }
}
