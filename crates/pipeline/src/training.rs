//! Training: every run that is not fresh.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device};
use serde::Serialize;
use sources::Combination;
use stage::{Freshness, Lock, write_json};
use vit::{About, MODEL_FILE, Model, Predictor, StepRecord, Tally};

use crate::{
    Context,
    examples::{Examples, draws_classes},
    loader::{Features, TokenReader, TrainingBatches},
    progress,
    runs::{self, FINGERPRINT_FILE, Run, STUDY_FILE, TRAIN_FILE, Trained},
};

/// What became of one run.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// How it stood before.
    pub before: Freshness,
    /// How training went.
    pub trained: Trained,
}

/// What `train` did.
#[derive(Debug, Serialize)]
pub struct TrainingReport {
    /// Every run asked for.
    pub runs: Vec<RunReport>,
}

/// Trains what is not fresh, one run after the other.
pub fn run(context: &Context) -> Result<TrainingReport> {
    let examples = Examples::new(context);
    for (split, members) in [("training", &examples.train), ("validation", &examples.valid)] {
        if members.is_empty() {
            bail!(
                "no {split} image has a label under data.labels = {}, data.classes = {}",
                context.study.data.labels,
                context.study.data.classes
            );
        }
    }
    let features = Features::open(context, &examples)?;
    let device = context.study.device.open()?;
    let runs = runs::requested(context, &features, &examples)?.complete()?;
    let train = |run: &Run| {
        train_one(context, &features, &examples, run, &device).with_context(|| format!("train {}", run.name()))
    };
    Ok(TrainingReport { runs: runs.iter().map(train).collect::<Result<_>>()? })
}

fn train_one(
    context: &Context,
    features: &Features,
    examples: &Examples,
    run: &Run,
    device: &Device,
) -> Result<RunReport> {
    let recipe = &context.study.recipe;
    let before = run.freshness(&context.memo, recipe.steps);
    let report = |trained| RunReport {
        combination: run.combination,
        seed: run.seed,
        folder: run.folder.clone(),
        before: before.clone(),
        trained,
    };
    if let (Freshness::Fresh, Some(trained)) = (&before, run.trained(&context.memo)) {
        return Ok(report(trained));
    }
    tracing::info!("train {}: {before}", run.name());
    let _lock = Lock::acquire(&run.folder)?;
    let _features_lock = features.verify(context, run.combination)?;
    run.remove_damaged_checkpoint()?;
    write_json(&run.folder.join(FINGERPRINT_FILE), &run.fingerprint)?;
    write_json(&run.folder.join(STUDY_FILE), &runs::resolved(context, run)?)?;

    let reader = TokenReader::new(context, features, run.combination, &context.study.model)?;
    let classes = context.study.data.classes.names().into_iter().map(str::to_owned).collect();
    let about = About { model: context.study.model.clone(), inputs: reader.inputs(), classes };
    let mut model = Model::new(about, run.seed, DType::F32, device)?;
    tracing::info!(
        "{} parameters, {} training and {} validation images, recipe {}: {} steps of {}",
        model.parameters().elements(),
        examples.train.len(),
        examples.valid.len(),
        recipe.name,
        recipe.steps,
        recipe.batch,
    );

    let bar = progress::bar(context.show_progress, recipe.steps as u64, &run.name(), "steps");
    let digest = run.fingerprint.digest().to_string();
    let how = vit::Run {
        folder: &run.folder,
        recipe,
        precision: context.study.train.precision,
        seed: run.seed,
        digest: &digest,
        validate_every: context.study.train.validate_every,
        checkpoint_every: context.study.train.checkpoint_every,
    };
    let outcome = std::thread::scope(|scope| {
        let draws = (recipe.batch, run.seed, draws_classes(context.study.data.labels));
        let mut batches = TrainingBatches::new(scope, &reader, &examples.train, draws);
        let mut validate = |predictor: &mut Predictor<'_>| {
            let mut tally = Tally::default();
            reader.for_each_batch(&examples.valid, |batch| {
                tally.add(&predictor.logits(batch)?, &batch.targets);
                Ok(())
            })?;
            tally.finish().ok_or_else(|| "there are no validation images".into())
        };
        let mut show = |record: &StepRecord| {
            bar.set_position(record.step as u64);
            bar.set_message(format!("loss {:.3}", record.loss));
        };
        vit::train(&mut model, &how, &mut batches, &mut validate, &mut show)
    })?;
    bar.finish_and_clear();

    if outcome.collapsed {
        tracing::warn!(
            "{} has collapsed: its loss {:.3} is the entropy of the classes ({:.3}) and it predicts one class only; \
             try a smaller recipe.lr or recipe=robust",
            run.name(),
            outcome.final_loss,
            outcome.class_entropy
        );
    }
    let trained = Trained {
        model: context.memo.hash_file(&run.folder.join(MODEL_FILE))?,
        train_images: examples.train.len(),
        valid_images: examples.valid.len(),
        outcome,
    };
    write_json(&run.folder.join(TRAIN_FILE), &trained)?;
    tracing::info!(
        "train {}: validation accuracy {:.2}% after {} steps, {:.0} s",
        run.name(),
        100.0 * trained.outcome.validation.validation.accuracy,
        trained.outcome.steps,
        trained.outcome.wall_s
    );
    Ok(report(trained))
}
