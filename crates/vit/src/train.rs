//! Shapes: B batch, K classes.

use std::{path::Path, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    Batch, Checkpoint, Draws, METRICS_FILE, Model, Precision, Predictor, Progress, Recipe, StepRecord, Trainer, Validation,
    ValidationRecord, VitError, collapsed, entropy,
    metrics::{Metrics, Record},
};

/// Name of the checkpoint in a run's folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

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
/// If a key of the recipe makes no sense, the checkpoint is damaged or of another configuration, the loss or
/// the gradient is not finite, a parameter receives no gradient, or batches, validation or files fail. The
/// last checkpoint is kept.
pub fn train(
    model: &mut Model,
    run: &Run<'_>,
    batches: &mut dyn Batches,
    validate: &mut dyn FnMut(&mut Predictor) -> Result<Validation, BoxError>,
    progress: &mut dyn FnMut(&StepRecord),
) -> Result<TrainOutcome, VitError> {
    let recipe = run.recipe;
    recipe.validate()?;
    let checkpoint_path = run.folder.join(CHECKPOINT_FILE);
    let mut trainer = Trainer::new(model, recipe, run.precision)?;
    let mut state = if checkpoint_path.exists() {
        Checkpoint::restore(&checkpoint_path, run.digest, model, &mut trainer)?
    } else {
        let (digest, draws) = (run.digest.to_owned(), Draws::new(run.seed, NOISE_STREAM));
        Checkpoint { digest, draws, progress: Progress::default() }
    };
    let resumed_from = state.progress.step;
    let mut metrics = Metrics::open(&run.folder.join(METRICS_FILE), resumed_from)?;
    let mut checkpoint_step = (resumed_from > 0).then_some(resumed_from);

    for step in resumed_from + 1..=recipe.steps {
        let begun = Instant::now();
        let failed = |source| VitError::Caller { step, source };
        let finite = |what, value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(VitError::NotFinite { what, value, step, checkpoint_step }),
        };

        let batch = batches.batch(step - 1).map_err(failed)?;
        let gradient = trainer.gradient(model, batch, &mut state.draws)?;
        let loss = finite("loss", gradient.loss)?;
        let grad_norm = finite("gradient norm", gradient.norm)?;
        let lr = recipe.lr_at(step);
        trainer.update(model, recipe.clip_factor(grad_norm), lr, step)?;

        let classes = model.about().classes.len();
        state.progress.add_step(step, loss, &target_sums(&batch.targets, classes, recipe.label_smoothing));
        let accuracy = gradient.correct as f64 / batch.images as f64;
        let seconds = begun.elapsed().as_secs_f64();
        let record = StepRecord { step, loss, accuracy, lr, grad_norm, seconds };
        metrics.write(&Record::Step(&record))?;
        progress(&record);

        let (validates, checkpoints) =
            (is_due(step, run.validate_every, recipe.steps), is_due(step, run.checkpoint_every, recipe.steps));
        if validates || checkpoints {
            // The loss is that of the weights before this step.
            finite("norm of the weights", trainer.weight_norm(model)?)?;
            trainer.write_to(model)?;
        }
        if validates {
            let validation_begun = Instant::now();
            let validation = validate(&mut Predictor::new(model)?).map_err(failed)?;
            finite("validation loss", validation.loss)?;
            let record = ValidationRecord { step, validation, seconds: validation_begun.elapsed().as_secs_f64() };
            metrics.write(&Record::Validation(&record))?;
            metrics.flush()?;
            state.progress.add_validation(record);
        }
        state.progress.wall_s += begun.elapsed().as_secs_f64();

        if checkpoints {
            // The metrics first: a checkpoint promises that every step before it is recorded.
            metrics.sync()?;
            state.write(&checkpoint_path, model, &trainer)?;
            checkpoint_step = Some(step);
        }
    }

    model.save(&run.folder.join(MODEL_FILE))?;
    outcome(state.progress, model, resumed_from, &checkpoint_path)
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

fn is_due(step: usize, every: usize, steps: usize) -> bool {
    step == steps || (every > 0 && step.is_multiple_of(every))
}

/// Sum over the batch of the smoothed `targets` (B, K): (K).
fn target_sums(targets: &[f32], classes: usize, smoothing: f64) -> Vec<f64> {
    let mut sums = vec![0.0; classes];
    for target in targets.chunks_exact(classes) {
        let smoothed = target.iter().map(|target| f64::from(*target) * (1.0 - smoothing) + smoothing / classes as f64);
        sums.iter_mut().zip(smoothed).for_each(|(sum, target)| *sum += target);
    }
    sums
}
