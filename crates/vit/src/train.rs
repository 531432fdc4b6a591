//! Shapes: B batch, K classes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Batch, CHECKPOINT_FILE, Checkpoint, Draws, DueCheckpoint, METRICS_FILE, Model, Precision, Predictor, Progress,
    Recipe, StepRecord, Trainer, Validation, ValidationRecord, VitError, collapsed, entropy,
    metrics::{Metrics, Record},
};

/// Name of the trained model in a run's folder.
pub const MODEL_FILE: &str = "model.safetensors";

/// Stream of [`Draws`] from which dropout and drop-path come.
const NOISE_STREAM: u64 = 1;

/// What a caller's batches or validation may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where batches come from.
pub trait Batches {
    /// The batch that step `index` + 1 learns from. It depends on `index` alone, so that a resumed run sees
    /// what an uninterrupted one would have seen.
    fn batch(&mut self, index: usize) -> Result<&Batch, BoxError>;
}

/// A training run: what is done, and where it leaves its files.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// Folder of the checkpoint, the metrics and the model; made if need be.
    pub folder: &'a Path,
    /// How the model is trained.
    pub recipe: &'a Recipe,
    /// What the step multiplies.
    pub precision: Precision,
    /// Seed of dropout and drop-path.
    pub seed: u64,
    /// Identifies the configuration and the data. A checkpoint with another digest is refused.
    pub digest: &'a str,
    /// Steps between two validations; 0 validates after the last step only.
    pub validate_every: usize,
    /// Steps between two checkpoints; 0 writes one after the last step only.
    pub checkpoint_every: usize,
}

/// What a finished run amounts to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOutcome {
    /// Steps in all.
    pub steps: usize,
    /// The step of the checkpoint that the run was resumed from; 0 if it began anew.
    pub resumed_from: usize,
    /// Mean training loss over the last 100 steps, in nats.
    pub final_loss: f64,
    /// The loss of who knows only the classes' frequencies, in nats.
    pub class_entropy: f64,
    /// Validation after the last step.
    pub validation: ValidationRecord,
    /// The validation with the highest accuracy.
    pub best_validation: ValidationRecord,
    /// Whether nothing but the classes' frequencies has been learned (see [`collapsed`]).
    pub collapsed: bool,
    /// Trainable numbers of the model.
    pub parameters: usize,
    /// Wall-clock time spent, over all sessions, validation included.
    pub wall_s: f64,
}

/// Trains `model` from where the run's folder stands: from its checkpoint if there is one, else from the
/// start. Leaves the trained model as [`MODEL_FILE`] and one line per step and validation in
/// [`METRICS_FILE`]. Interrupted and called again with a new model, it ends with the same weights, bit for
/// bit, as an uninterrupted run.
///
/// `validate` is called every [`Run::validate_every`] steps and after the last; `progress` after every step.
///
/// # Errors
/// As for [`Training`]; also if batches or validation fail.
pub fn train(
    model: &mut Model,
    run: &Run<'_>,
    batches: &mut dyn Batches,
    validate: &mut dyn FnMut(&mut Predictor) -> Result<Validation, BoxError>,
    progress: &mut dyn FnMut(&StepRecord),
) -> Result<TrainOutcome, VitError> {
    let trainer = Trainer::new(model, run.recipe, run.precision)?;
    let mut training = Training::begin(model, trainer, run.clone())?;
    while !training.is_done() {
        let (begun, step) = (Instant::now(), training.steps_done() + 1);
        let failed = |source| VitError::Caller { step, source };
        let batch = batches.batch(step - 1).map_err(failed)?;
        progress(&training.step(batch, begun.elapsed())?);
        if training.is_validation_due() {
            let begun = Instant::now();
            let validation = validate(&mut training.predictor()?).map_err(failed)?;
            training.add_validation(validation, begun.elapsed())?;
        }
        training.keep()?;
    }
    training.finish()
}

/// A run in the making, for those who train several on the same batches: [`step`](Self::step), a validation when one
/// [is due](Self::is_validation_due), [`keep`](Self::keep), and again, until it [is done](Self::is_done).
///
/// # Errors
/// All of it fails if a key of the recipe makes no sense, the checkpoint is damaged or of another configuration, the loss
/// or the gradient is not finite, a parameter receives no gradient, or files fail. The last checkpoint is kept.
#[derive(Debug)]
pub struct Training<'a> {
    model: &'a mut Model,
    run: Run<'a>,
    trainer: Trainer,
    state: Checkpoint,
    metrics: Metrics,
    resumed_from: usize,
    checkpoint_step: Option<usize>,
}

impl<'a> Training<'a> {
    /// Of `model`, with its `trainer`, from where the run's folder stands.
    pub fn begin(model: &'a mut Model, mut trainer: Trainer, run: Run<'a>) -> Result<Self, VitError> {
        run.recipe.validate()?;
        let path = run.folder.join(CHECKPOINT_FILE);
        let state = if path.exists() {
            Checkpoint::restore(&path, run.digest, model, &mut trainer)?
        } else {
            let (digest, draws) = (run.digest.to_owned(), Draws::new(run.seed, NOISE_STREAM));
            Checkpoint { digest, draws, progress: Progress::default(), metrics: None }
        };
        let resumed_from = state.progress.step;
        let metrics = Metrics::open(&run.folder.join(METRICS_FILE), state.metrics.as_ref())?;
        let checkpoint_step = (resumed_from > 0).then_some(resumed_from);
        Ok(Self { model, run, trainer, state, metrics, resumed_from, checkpoint_step })
    }

    /// Steps done, over all sessions.
    pub const fn steps_done(&self) -> usize {
        self.state.progress.step
    }

    /// Whether all steps are done.
    pub const fn is_done(&self) -> bool {
        self.steps_done() >= self.run.recipe.steps
    }

    /// Learns from `batch`, which took `waited` to come.
    pub fn step(&mut self, batch: &Batch, waited: Duration) -> Result<StepRecord, VitError> {
        let (begun, step, recipe) = (Instant::now(), self.steps_done() + 1, self.run.recipe);
        let gradient = self.trainer.gradient(self.model, batch, &mut self.state.draws, step)?;
        let (took, begun) = (waited + self.trainer.share(begun.elapsed()), Instant::now());
        let loss = self.finite("loss", gradient.loss, step)?;
        let grad_norm = self.finite("gradient norm", gradient.norm, step)?;
        let lr = recipe.lr_at(step);
        self.trainer.update(self.model, recipe.clip_factor(grad_norm), lr, step)?;

        let classes = self.model.about().classes.len();
        self.state.progress.add_step(step, loss, &target_sums(batch, classes, recipe.label_smoothing));
        let accuracy = gradient.correct as f64 / batch.images as f64;
        let seconds = (took + begun.elapsed()).as_secs_f64();
        let record = StepRecord { step, loss, accuracy, lr, grad_norm, seconds };
        self.metrics.write(&Record::Step(&record))?;
        if self.is_validation_due() || self.is_checkpoint_due() {
            // The loss is that of the weights before this step.
            self.finite("norm of the weights", self.trainer.weight_norm(self.model)?, step)?;
            self.trainer.write_to(self.model)?;
        }
        self.state.progress.wall_s += seconds;
        Ok(record)
    }

    /// Whether the last step is to be followed by a validation and has not been. A run that goes on at such a step, and waits
    /// there for others to catch up, is not validated twice.
    pub fn is_validation_due(&self) -> bool {
        let last = self.state.progress.last_validation.as_ref().map(|validation| validation.step);
        let (done, run) = (self.steps_done(), &self.run);
        last != Some(done) && is_due(done, run.validate_every, run.recipe.steps)
    }

    /// Whether a checkpoint is to be written before the next step and has not been.
    pub fn is_checkpoint_due(&self) -> bool {
        let (done, run) = (self.steps_done(), &self.run);
        self.checkpoint_step != Some(done) && is_due(done, run.checkpoint_every, run.recipe.steps)
    }

    /// The model; when a validation is due, as it is then.
    pub const fn model(&self) -> &Model {
        self.model
    }

    /// The model's answers as they are when a validation is due.
    pub fn predictor(&self) -> Result<Predictor<'_>, VitError> {
        Predictor::new(self.model)
    }

    /// Takes down what the validation that was due has found, and how long it took.
    pub fn add_validation(&mut self, validation: Validation, took: Duration) -> Result<(), VitError> {
        let step = self.steps_done();
        self.finite("validation loss", validation.loss, step)?;
        let record = ValidationRecord { step, validation, seconds: took.as_secs_f64() };
        self.metrics.write(&Record::Validation(&record))?;
        self.metrics.flush()?;
        self.state.progress.add_validation(record);
        self.state.progress.wall_s += took.as_secs_f64();
        Ok(())
    }

    /// Writes a checkpoint if one is due.
    pub fn keep(&mut self) -> Result<(), VitError> {
        if self.is_checkpoint_due() {
            let begun = Instant::now();
            self.checkpoint()?.write()?;
            self.kept(begun.elapsed());
        }
        Ok(())
    }

    /// The checkpoint of where the run stands, for those who write several at once. When it is written it is
    /// [`kept`](Self::kept), and only then the next step is taken.
    pub fn checkpoint(&mut self) -> Result<DueCheckpoint, VitError> {
        let (written, metrics) = self.metrics.written()?;
        self.state.metrics = Some(written);
        let tensors = Checkpoint::tensors(self.model, &self.trainer)?;
        let path = self.run.folder.join(CHECKPOINT_FILE);
        Ok(DueCheckpoint { path, state: self.state.clone(), tensors, metrics })
    }

    /// Takes down that the checkpoint that was due has been written, and how long that took.
    pub fn kept(&mut self, took: Duration) {
        self.checkpoint_step = Some(self.steps_done());
        self.state.progress.wall_s += took.as_secs_f64();
    }

    /// Writes the trained model.
    pub fn finish(self) -> Result<TrainOutcome, VitError> {
        self.model.save(&self.run.folder.join(MODEL_FILE))?;
        outcome(self.state.progress, self.model, self.resumed_from, &self.run.folder.join(CHECKPOINT_FILE))
    }

    fn finite(&self, what: &'static str, value: f64, step: usize) -> Result<f64, VitError> {
        match value.is_finite() {
            true => Ok(value),
            false => Err(VitError::NotFinite { what, value, step, checkpoint_step: self.checkpoint_step }),
        }
    }
}

fn outcome(
    progress: Progress,
    model: &Model,
    resumed_from: usize,
    checkpoint_path: &Path,
) -> Result<TrainOutcome, VitError> {
    let final_loss = progress.recent_loss();
    let class_entropy = entropy(&progress.target_sums);
    let (Some(validation), Some(best_validation)) = (progress.last_validation, progress.best_validation) else {
        // The last step validates, so only a finished checkpoint from elsewhere can lack it.
        let reason = "it has no validation".to_owned();
        return Err(VitError::Damaged { path: checkpoint_path.to_owned(), reason });
    };
    Ok(TrainOutcome {
        steps: progress.step,
        resumed_from,
        final_loss,
        class_entropy,
        collapsed: collapsed(final_loss, class_entropy, &validation.validation.predicted),
        validation,
        best_validation,
        parameters: model.parameters().elements(),
        wall_s: progress.wall_s,
    })
}

const fn is_due(step: usize, every: usize, steps: usize) -> bool {
    step == steps || (every > 0 && step.is_multiple_of(every))
}

/// Sum over the batch of the smoothed targets, each as much as its loss counts: (K).
fn target_sums(batch: &Batch, classes: usize, smoothing: f64) -> Vec<f64> {
    let mut sums = vec![0.0; classes];
    for (image, target) in batch.targets.chunks_exact(classes).enumerate() {
        let weight = f64::from(batch.weights.get(image).copied().unwrap_or(1.0));
        let smoothed = target.iter().map(|target| f64::from(*target) * (1.0 - smoothing) + smoothing / classes as f64);
        sums.iter_mut().zip(smoothed).for_each(|(sum, target)| *sum += weight * target);
    }
    sums
}
