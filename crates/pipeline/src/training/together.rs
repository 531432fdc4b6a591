//! Several runs that learn from the same batches.

use std::{panic::resume_unwind, thread, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use indicatif::ProgressBar;
use sources::Combination;
use stage::{Lock, write_sealed_json};
use vit::{
    Batch, Batches, Courier, DueCheckpoint, Held, METRICS_FILE, MODEL_FILE, Model, Predictors, Tally, TrainOutcome,
    Trainer, Training, Validation, VitError,
};

use super::{
    Common, Waiting,
    resident::{Tokens, hold},
    sharing::Sharing,
};
use crate::{
    examples::{Example, class_weights, draws_classes},
    loader::{Draws, TokenReader, TrainingBatches},
    progress,
    runs::{self, FINGERPRINT_FILE, Run, STUDY_FILE, TRAIN_FILE, Trained},
};

/// Trains all of `runs`, which have one seed, each with its place in `models`. What keeps a single run from being trained
/// is its own result; what keeps all of them is this function's. A GPU with room for them holds tokens as `sharing` says.
pub(super) fn train_together(
    common: &Common<'_>,
    runs: &[Waiting<'_>],
    models: &mut [Model],
    sharing: &mut Sharing,
) -> Result<Vec<Result<Trained>>> {
    let &Common { context, features, examples, .. } = common;
    let recipe = &context.study.recipe;
    let sources = Combination::new(runs.iter().flat_map(|waiting| waiting.run.combination.iter()));
    let (Some(sources), Some(seed)) = (sources, runs.first().map(|waiting| waiting.run.seed)) else {
        return Ok(Vec::new());
    };
    let digests: Vec<String> = runs.iter().map(|waiting| waiting.run.fingerprint.digest().to_string()).collect();
    tracing::info!(
        "{} training and {} validation images, recipe {}: {} steps of {}",
        examples.train.len(),
        examples.valid.len(),
        recipe.name,
        recipe.steps,
        recipe.batch,
    );
    let _features_lock = features.verify(context, sources)?;

    let of_models: Vec<&Model> = models.iter().collect();
    let trainers = Trainer::together(&of_models, recipe, context.study.train.precision)?;
    let resident = hold(common, sources, &of_models, &trainers, sharing.holds)?;
    if resident.validation.held.is_empty() {
        sharing.holds_no_validation();
    }
    let courier = if resident.training.streamed.is_empty() { None } else { Courier::to(&trainers)? };
    let reader = |of: &Tokens| TokenReader::new(context, features, of.streamed.iter().copied(), &context.study.model);
    let (training_reader, validation_reader) = (reader(&resident.training)?, reader(&resident.validation)?);
    let begun = runs.iter().zip(&digests).zip(models.iter_mut().zip(trainers));
    let begun = begun.map(|((waiting, digest), (model, trainer))| begin(common, waiting, digest, model, trainer));
    let name = if let [only] = runs { only.run.name() } else { format!("{} runs, seed {seed}", runs.len()) };
    let bar = progress::bar(context.show_progress, recipe.steps as u64, &name, "steps");
    let results = thread::scope(|scope| {
        let draws = Draws {
            batch: recipe.batch,
            seed,
            draws_classes: draws_classes(context.study.data.labels),
            class_weights: class_weights(context, &examples.train),
        };
        let mut batches = TrainingBatches::new(scope, &training_reader, &examples.train, draws, courier.as_ref());
        let mut members = Members::new(begun);
        let validate =
            |due: &[&Training<'_>]| validate(&validation_reader, &resident.validation.held, &examples.valid, due);
        let finish = |number: usize, outcome| finish(common, runs[number].run, outcome);
        let names = batches.names();
        members.learn(&mut batches, &names, &validate, &finish, &bar)?;
        Ok::<_, anyhow::Error>(members.results)
    })?;
    bar.finish_and_clear();

    Ok(results.into_iter().map(|result| result.context("it was not trained to the end")?).collect())
}

/// Locks the run's folder, writes down what the run is, and goes on where its checkpoint stands.
fn begin<'a>(
    common: &'a Common<'_>,
    Waiting { run, before }: &'a Waiting<'_>,
    digest: &'a str,
    model: &'a mut Model,
    trainer: Trainer,
) -> Result<(Training<'a>, Lock)> {
    let study = &common.context.study;
    tracing::info!("train {}: {before}; {} parameters", run.name(), model.parameters().elements());
    let lock = Lock::acquire(&run.folder)?;
    run.remove_damaged_checkpoint()?;
    write_sealed_json(&run.folder.join(FINGERPRINT_FILE), &run.fingerprint)?;
    write_sealed_json(&run.folder.join(STUDY_FILE), &runs::resolved(common.context, run)?)?;
    let how = vit::Run {
        folder: &run.folder,
        recipe: &study.recipe,
        precision: study.train.precision,
        seed: run.seed,
        digest,
        validate_every: study.train.validate_every,
        checkpoint_every: study.train.checkpoint_every,
    };
    Ok((Training::begin(model, trainer, how)?, lock))
}

/// Runs on their way, and what became of those that are not any more.
struct Members<'a> {
    active: Vec<Member<'a>>,
    /// By number; none as long as the run is active.
    results: Vec<Option<Result<Trained>>>,
}

/// A run on its way. Its folder is locked as long as it is.
struct Member<'a> {
    number: usize,
    training: Training<'a>,
    _lock: Lock,
}

impl<'a> Members<'a> {
    fn new(begun: impl Iterator<Item = Result<(Training<'a>, Lock)>>) -> Self {
        let (mut active, mut results) = (Vec::new(), Vec::new());
        for (number, begun) in begun.enumerate() {
            match begun {
                Ok((training, lock)) => {
                    active.push(Member { number, training, _lock: lock });
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        Self { active, results }
    }

    /// Trains all to the end. Those that were interrupted earlier come first until they have caught up.
    fn learn(
        &mut self,
        batches: &mut dyn Batches,
        names: &dyn Fn(usize) -> Vec<&'a str>,
        validate: &dyn Fn(&[&Training<'_>]) -> Result<Vec<Validation>>,
        finish: &dyn Fn(usize, TrainOutcome) -> Result<Trained>,
        bar: &ProgressBar,
    ) -> Result<()> {
        self.take_out_the_done(finish);
        while let Some(index) = self.active.iter().map(|member| member.training.steps_done()).min() {
            let begun = Instant::now();
            let batch = batches.batch(index).map_err(anyhow::Error::from_boxed)?;
            let learning = self.active.iter().filter(|member| member.training.steps_done() == index).count();
            let waited = begun.elapsed() / learning as u32;
            let mut loss = 0.0;
            self.each(index, |training| {
                let step = training.step(batch, waited).map_err(|error| blame(error, batch, index, names))?;
                loss += step.loss / learning as f64;
                Ok(())
            });
            self.validate(index + 1, validate)?;
            self.keep(index + 1);
            bar.set_position(index as u64 + 1);
            bar.set_message(format!("loss {loss:.3}"));
            self.take_out_the_done(finish);
        }
        Ok(())
    }

    /// Does `work` with those that have done `steps` steps; takes out those with which it fails.
    fn each(&mut self, steps: usize, mut work: impl FnMut(&mut Training<'a>) -> Result<()>) {
        let Self { active, results } = self;
        active.retain_mut(|Member { number, training, .. }| {
            if training.steps_done() != steps {
                return true;
            }
            work(training).map_err(|error| results[*number] = Some(Err(error))).is_ok()
        });
    }

    /// Validates those that have done `steps` steps and are due, in one pass over the images.
    fn validate(&mut self, steps: usize, validate: &dyn Fn(&[&Training<'_>]) -> Result<Vec<Validation>>) -> Result<()> {
        let is_due = |training: &Training<'_>| training.steps_done() == steps && training.is_validation_due();
        let due: Vec<&Training<'_>> =
            self.active.iter().map(|member| &member.training).filter(|training| is_due(training)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut found = validate(&due)?.into_iter();
        let took = begun.elapsed() / due.len() as u32;
        self.each(steps, |training| match is_due(training).then(|| found.next()).flatten() {
            Some(validation) => Ok(training.add_validation(validation, took)?),
            None => Ok(()),
        });
        Ok(())
    }

    /// Writes the checkpoints that are due of those that have done `steps` steps, some at once: what takes long is to wait for the
    /// disk.
    fn keep(&mut self, steps: usize) {
        /// Each needs memory for its tensors, and again for its file.
        const MOST_AT_ONCE: usize = 8;
        loop {
            let (begun, mut due) = (Instant::now(), Vec::new());
            self.each(steps, |training| {
                if due.len() < MOST_AT_ONCE && training.is_checkpoint_due() {
                    due.push(training.checkpoint()?);
                }
                Ok(())
            });
            if due.is_empty() {
                return;
            }
            let mut written = write_at_once(&due).into_iter();
            let took = begun.elapsed() / due.len() as u32;
            self.each(steps, |training| {
                if training.is_checkpoint_due()
                    && let Some(written) = written.next()
                {
                    written?;
                    training.kept(took);
                }
                Ok(())
            });
        }
    }

    fn take_out_the_done(&mut self, finish: &dyn Fn(usize, TrainOutcome) -> Result<Trained>) {
        for Member { number, training, _lock } in self.active.extract_if(.., |member| member.training.is_done()) {
            let outcome = training.finish().map_err(anyhow::Error::from);
            self.results[number] = Some(outcome.and_then(|outcome| finish(number, outcome)));
        }
    }
}

fn write_at_once(due: &[DueCheckpoint]) -> Vec<Result<(), VitError>> {
    thread::scope(|scope| {
        let write = |checkpoint| {
            let thread = thread::Builder::new().spawn_scoped(scope, move || DueCheckpoint::write(checkpoint));
            thread.map_err(|_| checkpoint)
        };
        let others: Vec<_> = due.iter().skip(1).map(write).collect();
        // The first is this thread's, and those for which there is no other.
        let first = due.first().map(DueCheckpoint::write);
        let others = others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(checkpoint) => checkpoint.write(),
        });
        first.into_iter().chain(others).collect()
    })
}

/// Says of a loss that is not finite which images the step learned from, and which of them holds what no feature should.
fn blame<'a>(error: VitError, batch: &Batch, index: usize, names: &dyn Fn(usize) -> Vec<&'a str>) -> anyhow::Error {
    /// As many images are named.
    const MOST_NAMES: usize = 8;
    if !matches!(error, VitError::NotFinite { .. }) {
        return error.into();
    }
    let names = names(index);
    if let Some((source, image, value)) = batch.first_not_finite() {
        let name = names.get(image).copied().unwrap_or_default();
        return anyhow!(
            "{error}: {source} of image `{name}` in batch {} holds {value}\n\n\
             hint: run `just verify`, which names the damaged file, then `just extract` and this command again",
            index + 1
        );
    }
    let more = names.len().saturating_sub(MOST_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    anyhow!(
        "{error}: all values of batch {} are finite; its images are {}{more}\n\n\
         hint: try a smaller recipe.lr, or recipe=robust",
        index + 1,
        names[..names.len().min(MOST_NAMES)].join(", ")
    )
}

/// Asks all of `due` about `examples`, some of whose tokens are `held`.
fn validate(
    reader: &TokenReader<'_>,
    held: &[Held],
    examples: &[Example],
    due: &[&Training<'_>],
) -> Result<Vec<Validation>> {
    let models: Vec<&Model> = due.iter().map(|training| training.model()).collect();
    let mut predictors = Predictors::new(&models)?.reading(held);
    let mut tallies = vec![Tally::default(); due.len()];
    reader.ask(examples, &mut predictors, |index, logits, batch| {
        tallies[index].add(&logits, &batch.targets);
        Ok(())
    })?;
    tallies.into_iter().map(|tally| tally.finish().context("there are no validation images")).collect()
}

/// Writes down how training went.
fn finish(common: &Common<'_>, run: &Run, outcome: TrainOutcome) -> Result<Trained> {
    if outcome.collapsed {
        tracing::warn!(
            "{} has collapsed: its loss {:.3} is the entropy of the classes ({:.3}) and it predicts one class only; \
             try a smaller recipe.lr or recipe=robust",
            run.name(),
            outcome.final_loss,
            outcome.class_entropy
        );
    }
    let hash = |name| common.context.memo.hash_written(&run.folder.join(name));
    let trained = Trained {
        model: hash(MODEL_FILE)?,
        metrics: hash(METRICS_FILE)?,
        train_images: common.examples.train.len(),
        valid_images: common.examples.valid.len(),
        outcome,
    };
    write_sealed_json(&run.folder.join(TRAIN_FILE), &trained)?;
    tracing::info!(
        "train {}: validation accuracy {:.2}% after {} steps, {:.0} s",
        run.name(),
        100.0 * trained.outcome.validation.validation.accuracy,
        trained.outcome.steps,
        trained.outcome.wall_s
    );
    Ok(trained)
}
