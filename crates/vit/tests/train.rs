//! The training loop: determinism, resuming, its files and its errors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use candle_core::{DType, Device};
use common::{CLASSES, about, made, validate, weight_bits};
use sources::Source;
use vit::{
    Batch, BoxError, CHECKPOINT_FILE, Checkpoint, METRICS_FILE, MODEL_FILE, Model, Precision, Predictor, Recipe, Run,
    TrainOutcome, Trainer, Training, VitError, train,
};

const IMAGES: usize = 6;
const STEPS: usize = 20;

fn recipe() -> Recipe {
    Recipe { steps: STEPS, batch: IMAGES, warmup_steps: 5, drop_path: 0.3, ..Recipe::robust() }
}

fn run<'a>(folder: &'a Path, recipe: &'a Recipe) -> Run<'a> {
    Run { folder, recipe, precision: Precision::F32, seed: 5, digest: "digest", validate_every: 4, checkpoint_every: 8 }
}

fn new_model() -> Model {
    Model::new(about(|config| config.dropout = 0.2), 5, DType::F32, &Device::Cpu).unwrap()
}

fn batch(index: usize) -> Result<Batch, BoxError> {
    Ok(common::batch(&about(|_| {}), IMAGES, index as f64))
}

/// Trains a new model in `folder`; the batches fail at step `stop`.
fn train_until(folder: &Path, recipe: &Recipe, stop: usize) -> (Model, Result<TrainOutcome, VitError>) {
    let mut model = new_model();
    let mut batches = made(|index| if index + 1 == stop { Err("pulled the plug".into()) } else { batch(index) });
    let outcome = train(&mut model, &run(folder, recipe), &mut batches, &mut validate, &mut |_| {});
    (model, outcome)
}

#[test]
fn an_interrupted_run_ends_like_an_uninterrupted_one() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = recipe();
    let (model, outcome) = train_until(whole.path(), &recipe, usize::MAX);
    let outcome = outcome.unwrap();

    let (_, first) = train_until(parts.path(), &recipe, 14);
    assert_eq!(first.unwrap_err().to_string(), "step 14: pulled the plug");
    assert_eq!(Checkpoint::read(parts.path()).unwrap().unwrap().progress.step, 8);
    // A run that waits there for others has been validated and kept already.
    let mut waiting = new_model();
    let trainer = Trainer::new(&waiting, &recipe, Precision::F32).unwrap();
    let training = Training::begin(&mut waiting, trainer, run(parts.path(), &recipe)).unwrap();
    assert_eq!((training.steps_done(), training.is_validation_due()), (8, false));
    drop(training);
    let (resumed, second) = train_until(parts.path(), &recipe, usize::MAX);
    let second = second.unwrap();

    assert_eq!(second.resumed_from, 8);
    assert_eq!(weight_bits(&model), weight_bits(&resumed));
    assert!((outcome.final_loss - second.final_loss).abs() < 1e-12);
    assert_eq!(outcome.validation.validation.predicted, second.validation.validation.predicted);
    let file = |folder: &Path| fs_err::read(folder.join(MODEL_FILE)).unwrap();
    assert_eq!(file(whole.path()), file(parts.path()));
    let lines = |folder: &Path| metric_steps(&folder.join(METRICS_FILE));
    assert_eq!(lines(whole.path()), lines(parts.path()));
    assert_eq!(lines(parts.path()).len(), STEPS + STEPS / 4);
}

fn metric_steps(path: &Path) -> Vec<(String, u64, Option<f64>)> {
    let text = fs_err::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| (line["kind"].to_string(), line["step"].as_u64().unwrap(), line["loss"].as_f64())).collect()
}

#[test]
fn a_finished_run_called_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe();
    let first = train_until(folder.path(), &recipe, usize::MAX).1.unwrap();
    let model = fs_err::read(folder.path().join(MODEL_FILE)).unwrap();
    let again = train_until(folder.path(), &recipe, 1).1.unwrap();
    assert_eq!(again.resumed_from, STEPS);
    assert_eq!(again.validation.validation.predicted, first.validation.validation.predicted);
    assert_eq!(fs_err::read(folder.path().join(MODEL_FILE)).unwrap(), model);
}

#[test]
fn the_seed_decides_the_weights() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let recipe = recipe();
    let weights = |folder: &Path, seed| {
        let mut model = new_model();
        let run = Run { seed, ..run(folder, &recipe) };
        train(&mut model, &run, &mut made(batch), &mut validate, &mut |_| {}).unwrap();
        weight_bits(&model)
    };
    let first = weights(folders[0].path(), 5);
    assert_eq!(first, weights(folders[1].path(), 5));
    assert_ne!(first, weights(folders[2].path(), 6));
}

/// Names the file that the child process of the next test writes its weights to.
const CHILD_OUTPUT: &str = "VIT_TEST_CHILD_OUTPUT";

#[test]
fn the_number_of_threads_does_not_change_the_weights() {
    // Wide enough for candle's matrix products to be split over threads.
    if let Some(path) = std::env::var_os(CHILD_OUTPUT) {
        let folder = tempfile::tempdir().unwrap();
        let about = about(|config| config.width = 64);
        let mut model = Model::new(about.clone(), 5, DType::F32, &Device::Cpu).unwrap();
        let recipe = Recipe { steps: 3, warmup_steps: 1, ..recipe() };
        let mut batches = made(|index| Ok(common::batch(&about, 24, index as f64)));
        train(&mut model, &run(folder.path(), &recipe), &mut batches, &mut validate, &mut |_| {}).unwrap();
        fs_err::copy(folder.path().join(MODEL_FILE), Path::new(&path)).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = ["1", "2", "5"].map(|threads| {
        let path = folder.path().join(threads);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_number_of_threads_does_not_change_the_weights"])
            .env("RAYON_NUM_THREADS", threads)
            .env(CHILD_OUTPUT, &path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        fs_err::read(path).unwrap()
    });
    assert!(files[0] == files[1] && files[0] == files[2]);
}

#[test]
fn a_stored_model_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let (model, outcome) = train_until(folder.path(), &recipe(), usize::MAX);
    outcome.unwrap();
    let loaded = Model::load(&folder.path().join(MODEL_FILE), &Device::Cpu).unwrap();
    assert_eq!(loaded.about(), model.about());
    let batch = common::batch(model.about(), 5, 0.7);
    let logits = |model: &Model| Predictor::new(model).unwrap().logits(&batch).unwrap();
    assert_eq!(logits(&loaded), logits(&model));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe();
    let mut batches = made(|index| {
        let mut batch = batch(index)?;
        if index == 9 {
            common::ready(batch.tokens.get_mut(&Source::Fm2).unwrap())[7] = f32::NAN;
        }
        Ok(batch)
    });
    let mut model = new_model();
    let error = train(&mut model, &run(folder.path(), &recipe), &mut batches, &mut validate, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the loss is NaN at step 10; the checkpoint of step 8 is kept");
    assert_eq!(Checkpoint::read(folder.path()).unwrap().unwrap().progress.step, 8);
    assert!(!folder.path().join(MODEL_FILE).exists());
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe();
    train_until(folder.path(), &recipe, 14).1.unwrap_err();
    let path = folder.path().join(CHECKPOINT_FILE);

    let other = Run { digest: "other", ..run(folder.path(), &recipe) };
    let error = train(&mut new_model(), &other, &mut made(batch), &mut validate, &mut |_| {}).unwrap_err();
    assert!(matches!(error, VitError::OtherConfiguration { .. }), "{error}");
    assert!(error.to_string().ends_with("belongs to configuration digest, expected other"), "{error}");

    let intact = fs_err::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(intact[..8].try_into().unwrap()) as usize;
    let digest = intact.windows(6).position(|bytes| bytes == b"digest").unwrap();
    for place in [digest + 1, header, intact.len() - 1, (header + intact.len()) / 2] {
        let mut damaged = intact.clone();
        damaged[place] ^= 1;
        fs_err::write(&path, damaged).unwrap();
        let error = train_until(folder.path(), &recipe, usize::MAX).1.unwrap_err();
        assert!(matches!(error, VitError::Damaged { .. }), "byte {place}: {error}");
    }
    fs_err::write(&path, &intact[..intact.len() / 2]).unwrap();
    let error = train_until(folder.path(), &recipe, usize::MAX).1.unwrap_err();
    assert!(matches!(error, VitError::Damaged { .. }), "{error}");
}

#[test]
fn a_run_that_cannot_learn_is_called_collapsed() {
    let folder = tempfile::tempdir().unwrap();
    // Blank images: only the frequencies of the classes can be learned, here 3 : 1 : 1.
    let recipe = Recipe { steps: 200, batch: 5, ..Recipe::paper() };
    let mut blank = made(|_| {
        let mut batch = common::batch(&about(|_| {}), 5, 0.0);
        batch.tokens.values_mut().for_each(|tokens| common::ready(tokens).fill(0.0));
        batch.targets = vec![1., 0., 0., 1., 0., 0., 1., 0., 0., 0., 1., 0., 0., 0., 1.];
        Ok(batch)
    });
    let mut model = Model::new(about(|_| {}), 0, DType::F32, &Device::Cpu).unwrap();
    let outcome = train(&mut model, &run(folder.path(), &recipe), &mut blank, &mut validate, &mut |_| {}).unwrap();
    assert!((outcome.class_entropy - 0.9503).abs() < 1e-4, "{}", outcome.class_entropy);
    assert!(outcome.collapsed, "{outcome:?}");
}

#[test]
fn a_run_that_can_learn_does() {
    let folder = tempfile::tempdir().unwrap();
    // The class is the sign of all tokens of an image, or their absence.
    let recipe = Recipe { steps: 60, batch: CLASSES, ..Recipe::paper() };
    let images = || {
        let mut batch = common::batch(&about(|_| {}), CLASSES, 0.0);
        for tokens in batch.tokens.values_mut() {
            let tokens = common::ready(tokens);
            let per_image = tokens.len() / CLASSES;
            tokens.iter_mut().enumerate().for_each(|(i, token)| *token = 1.0 - (i / per_image) as f32);
        }
        batch
    };
    let calls = AtomicUsize::new(0);
    let mut validate = |predictor: &mut Predictor<'_>| {
        calls.fetch_add(1, Ordering::Relaxed);
        let mut tally = vit::Tally::default();
        let batch = images();
        tally.add(&predictor.logits(&batch)?, &batch.targets);
        tally.finish().ok_or_else(|| "no images".into())
    };
    let mut model = Model::new(about(|_| {}), 0, DType::F32, &Device::Cpu).unwrap();
    let mut steps = Vec::new();
    let mut progress = |record: &vit::StepRecord| steps.push(record.step);
    let run = run(folder.path(), &recipe);
    let outcome = train(&mut model, &run, &mut made(|_| Ok(images())), &mut validate, &mut progress).unwrap();
    assert_eq!(outcome.validation.validation.accuracy, 1.0, "{outcome:?}");
    assert!(!outcome.collapsed);
    assert_eq!(calls.into_inner(), 15);
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());
}
