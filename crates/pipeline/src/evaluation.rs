//! Evaluation: every trained run that has no fresh one. Only here the test images are looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use candle_core::Device;
use dataset::{ClassSet, Layout};
use ndarray::Array2;
use ndarray_npy::WriteNpyExt;
use serde::{Deserialize, Serialize};
use sources::Combination;
use stage::{AtomicFile, ContentHash, Fingerprint, Freshness, HashMemo, Lock, write_json};
use study::CombinationChoice;
use vit::{MODEL_FILE, Model, Predictor, first_largest};

use crate::{
    Context,
    examples::{self, Example, Examples},
    loader::{Features, TokenReader},
    paper::{self, PaperRow},
    progress,
    runs::{self, Run, Trained},
    scores::{Accuracy, Scores},
};

/// Version of everything between a trained model and its scores.
const NUMERICS_VERSION: u32 = 2;

const FOLDER: &str = "evaluation";
const FILE: &str = "evaluation.json";

/// `evaluation/evaluation.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What the scores depend on.
    pub fingerprint: Fingerprint,
    /// On the images trained on.
    pub train: Scores,
    /// On the validation images.
    pub valid: Scores,
    /// On the test images.
    pub test: Scores,
    /// Test accuracy without the images that have a byte-identical copy in the training split.
    pub test_without_copies: Accuracy,
    /// Logits, labels and predictions beside this file: hashes by name.
    pub files: BTreeMap<String, ContentHash>,
}

/// One evaluated run.
#[derive(Debug, Serialize)]
pub struct EvaluatedRun {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether its evaluation was fresh already.
    pub was_fresh: bool,
    /// How training went.
    pub trained: Trained,
    /// Its scores.
    pub evaluation: Evaluation,
    /// What the paper reports for these inputs, in percent.
    pub paper_train: Option<f64>,
    /// The same on test.
    pub paper_test: Option<f64>,
}

/// What `eval` did.
#[derive(Debug, Serialize)]
pub struct EvaluationReport {
    /// Every trained run asked for.
    pub runs: Vec<EvaluatedRun>,
    /// Runs of the configuration that are not trained.
    pub untrained: Vec<String>,
}

/// Evaluates what is not fresh.
pub fn run(context: &Context) -> Result<EvaluationReport> {
    let examples = Examples::new(context);
    if examples.test.is_empty() {
        bail!("no test image has a label under data.classes = {}", context.study.data.classes);
    }
    let features = Features::open(context, &examples)?;
    let device = context.study.device.open()?;
    let paper = paper_rows(context)?;
    let mut report = EvaluationReport { runs: Vec::new(), untrained: Vec::new() };
    let requested = runs::requested(context, &features, &examples)?;
    report.untrained.extend(requested.blocked.iter().map(ToString::to_string));
    for run in requested.runs {
        let Some(trained) = run.trained(&context.memo) else {
            report.untrained.push(run.name());
            continue;
        };
        let fingerprint = fingerprint(context, &examples, &run, &trained);
        let fresh = read(&run.folder)
            .filter(|evaluation| evaluation.fingerprint == fingerprint)
            .filter(|evaluation| has_answers(&run.folder, evaluation, &context.memo));
        let was_fresh = fresh.is_some();
        let evaluation = match fresh {
            Some(evaluation) => evaluation,
            None => evaluate(context, &features, &examples, &run, fingerprint, &device)
                .with_context(|| format!("evaluate {}", run.name()))?,
        };
        let row = paper.get(&run.combination);
        report.runs.push(EvaluatedRun {
            combination: run.combination,
            seed: run.seed,
            folder: run.folder.clone(),
            was_fresh,
            trained,
            evaluation,
            paper_train: row.map(|row| row.train_accuracy),
            paper_test: row.map(|row| row.test_accuracy),
        });
    }
    if report.runs.is_empty() {
        bail!("no run of this configuration is trained\n\nhint: run `just train {}`", asked_for(context));
    }
    if context.study.combo != CombinationChoice::Study && !report.untrained.is_empty() {
        bail!("not trained: {}\n\nhint: run `just train {}`", report.untrained.join(", "), asked_for(context));
    }
    Ok(report)
}

/// The paper's accuracies, where ours can be set beside them.
fn paper_rows(context: &Context) -> Result<HashMap<Combination, PaperRow>> {
    let (study, layout) = (&context.study, context.dataset.layout);
    let comparable = study.data.classes == ClassSet::Six && layout != Layout::Folders;
    if study.study.paper && comparable { paper::rows() } else { Ok(HashMap::new()) }
}

fn asked_for(context: &Context) -> String {
    match &context.study.combo {
        CombinationChoice::Study => String::new(),
        combo => format!("combo={combo}"),
    }
}

/// How a trained run's evaluation stands.
pub(crate) fn freshness(context: &Context, examples: &Examples, run: &Run) -> Freshness {
    let Some(trained) = run.trained(&context.memo) else { return Freshness::Missing };
    let current = fingerprint(context, examples, run, &trained);
    match read(&run.folder) {
        None => Freshness::Missing,
        Some(evaluation) if !has_answers(&run.folder, &evaluation, &context.memo) => Freshness::Missing,
        Some(evaluation) if evaluation.fingerprint == current => Freshness::Fresh,
        Some(evaluation) => Freshness::Stale { changes: evaluation.fingerprint.changes_to(&current) },
    }
}

fn fingerprint(context: &Context, examples: &Examples, run: &Run, trained: &Trained) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("run", run.fingerprint.digest());
    fingerprint.set("model", trained.model);
    fingerprint.set("data.test", examples::digest(context, &examples.test));
    let leaked = context.dataset.leaked_test_images();
    let leaked: Vec<&[u8]> = leaked.iter().map(|index| context.dataset.images[*index].id.as_bytes()).collect();
    fingerprint.set("data.copies", ContentHash::of_parts(leaked));
    fingerprint.set("eval.numerics", NUMERICS_VERSION);
    fingerprint
}

pub(crate) fn read(folder: &Path) -> Option<Evaluation> {
    serde_json::from_slice(&std::fs::read(folder.join(FOLDER).join(FILE)).ok()?).ok()
}

/// The logits, labels and predictions of the run in `folder`, and their hashes.
pub(crate) fn answers<'a>(
    folder: &Path,
    evaluation: &'a Evaluation,
) -> impl Iterator<Item = (PathBuf, ContentHash)> + use<'a> {
    let folder = folder.join(FOLDER);
    evaluation.files.iter().map(move |(name, hash)| (folder.join(name), *hash))
}

/// Whether they are there, and are what was written.
fn has_answers(folder: &Path, evaluation: &Evaluation, memo: &HashMemo) -> bool {
    answers(folder, evaluation).all(|(path, hash)| memo.hash_file(&path).is_ok_and(|found| found == hash))
}

fn evaluate(
    context: &Context,
    features: &Features,
    examples: &Examples,
    run: &Run,
    fingerprint: Fingerprint,
    device: &Device,
) -> Result<Evaluation> {
    tracing::info!("evaluate {}", run.name());
    let _lock = Lock::acquire(&run.folder)?;
    let _features_lock = features.verify(context, run.combination)?;
    let path = run.folder.join(MODEL_FILE);
    let model = Model::load(&path, device)?;
    let reader = TokenReader::new(context, features, run.combination, &model.about().model)?;
    let names = context.study.data.classes.names();

    let bar = progress::bar(context.show_progress, examples.iter().count() as u64, &run.name(), "images");
    let mut predictor = Predictor::new(&model)?;
    let mut logits_of = |members: &[Example]| -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(members.len());
        reader.for_each_batch(members, |batch| {
            all.extend(predictor.logits(batch)?);
            bar.set_position(bar.position() + batch.images as u64);
            Ok(())
        })?;
        Ok(all)
    };
    let folder = run.folder.join(FOLDER);
    let (mut scores, mut files) = (HashMap::new(), BTreeMap::new());
    for (split, members) in [("train", &examples.train), ("valid", &examples.valid), ("test", &examples.test)] {
        let logits = logits_of(members)?;
        let answers: Vec<(usize, usize)> = members
            .iter()
            .zip(&logits)
            .map(|(example, logits)| (example.target.class(), first_largest(logits)))
            .collect();
        scores.insert(split, Scores::new(&names, &answers));
        for name in write_answers(context, &folder, split, members, &logits, &names)? {
            let hash = context.memo.hash_file(&folder.join(&name))?;
            files.insert(name, hash);
        }
        if split == "test" {
            scores.insert("without copies", Scores::new(&names, &without_copies(context, members, &answers)));
        }
    }
    bar.finish_and_clear();
    let mut take = |split| scores.remove(split).ok_or_else(|| anyhow!("no scores of {split}"));
    let evaluation = Evaluation {
        fingerprint,
        train: take("train")?,
        valid: take("valid")?,
        test: take("test")?,
        test_without_copies: take("without copies")?.overall,
        files,
    };
    write_json(&folder.join(FILE), &evaluation)?;
    Ok(evaluation)
}

fn without_copies(context: &Context, members: &[Example], answers: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let leaked: HashSet<usize> = context.dataset.leaked_test_images().into_iter().collect();
    let kept = members.iter().zip(answers).filter(|(example, _)| !leaked.contains(&example.index));
    kept.map(|(_, answer)| *answer).collect()
}

/// `test_logits.npy` (images, classes), `test_labels.npy` (images), `test_predictions.csv`; likewise for the
/// other splits. Gives the files' names.
fn write_answers(
    context: &Context,
    folder: &Path,
    split: &str,
    members: &[Example],
    logits: &[Vec<f32>],
    names: &[&str],
) -> Result<[String; 3]> {
    let [logits_name, labels_name, predictions_name] =
        ["logits.npy", "labels.npy", "predictions.csv"].map(|name| format!("{split}_{name}"));
    let flat: Vec<f32> = logits.iter().flatten().copied().collect();
    let mut file = AtomicFile::create(&folder.join(&logits_name))?;
    Array2::from_shape_vec((logits.len(), names.len()), flat)?.write_npy(&mut file)?;
    file.commit()?;

    let labels: Vec<i64> = members.iter().map(|example| example.target.class() as i64).collect();
    let mut file = AtomicFile::create(&folder.join(&labels_name))?;
    ndarray::Array1::from(labels).write_npy(&mut file)?;
    file.commit()?;

    let mut table = csv::Writer::from_writer(AtomicFile::create(&folder.join(&predictions_name))?);
    let probabilities = names.iter().map(|name| format!("p_{name}"));
    table.write_record(["image", "label", "prediction"].map(str::to_owned).into_iter().chain(probabilities))?;
    for (example, logits) in members.iter().zip(logits) {
        let words = [
            context.dataset.images[example.index].id.clone(),
            names[example.target.class()].to_owned(),
            names[first_largest(logits)].to_owned(),
        ];
        table.write_record(words.into_iter().chain(softmax(logits).map(|p| format!("{p:.6}"))))?;
    }
    table.into_inner().map_err(|error| anyhow!("cannot write the predictions: {}", error.error()))?.commit()?;
    Ok([logits_name, labels_name, predictions_name])
}

fn softmax(logits: &[f32]) -> impl Iterator<Item = f32> {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.iter().map(move |logit| (logit - largest).exp() / sum)
}
