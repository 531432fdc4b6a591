//! Evaluation: every trained run that has no fresh one. Only here the test images are looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use candle_core::Device;
use dataset::{ClassSet, Layout, Split};
use ndarray::Array2;
use ndarray_npy::{ReadNpyExt as _, WriteNpyExt as _};
use serde::{Deserialize, Serialize};
use sources::Combination;
use stage::{AtomicFile, ContentHash, Fingerprint, Freshness, HashMemo, Lock, read_sound_json, write_sealed_json};
use study::CombinationChoice;
use vit::{MODEL_FILE, Model, Predictors, Trainer, first_largest};

use crate::{
    Context,
    copies::Copies,
    examples::{Example, Examples},
    failed::Failed,
    features::Features,
    loader::{INFERENCE_BATCH, TokenReader},
    out_of_memory::is_out_of_memory,
    paper::{self, PaperRow},
    progress,
    runs::{self, Run, Trained},
    scores::{Accuracy, Scores},
};

/// Version of everything between a trained model and its scores.
const NUMERICS_VERSION: u32 = 3;

/// Runs that are evaluated in one pass over the images. What a pass has found is kept, whatever becomes of the next; on a GPU a pass
/// takes seconds, and most of them to bring the images' features there.
const MOST_TOGETHER: usize = 16;
const MOST_TOGETHER_ON_GPU: usize = 64;

const FOLDER: &str = "evaluation";
pub(crate) const FILE: &str = "evaluation.json";

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
    /// Test accuracy without the images that show what a training image shows, byte for byte or nearly.
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
    let (mut report, mut due) = fresh_and_due(context, &features, &examples, &paper)?;
    let mut failed = Failed::to("evaluate");
    let copies = if due.is_empty() { HashSet::new() } else { Copies::find(context)?.indices(context, Split::Test) };
    let evaluator = Evaluator { context, features: &features, examples: &examples, device: &device, copies };
    let mut most = if device.is_cpu() { MOST_TOGETHER } else { MOST_TOGETHER_ON_GPU };
    while !due.is_empty() {
        let together: Vec<Due> = due.drain(..due.len().min(most)).collect();
        let outcomes = match evaluator.evaluate(&together) {
            Err(error) if together.len() > 1 && is_out_of_memory(&error) => {
                most = together.len() / 2;
                tracing::warn!("no memory to ask {} runs at once; going on with {most} at most", together.len());
                due.splice(..0, together);
                continue;
            }
            Err(error) if together.len() == 1 && is_out_of_memory(&error) => {
                vec![Outcome::Failed(error)]
            }
            outcomes => outcomes?,
        };
        let mut left = Vec::new();
        for (due, outcome) in together.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Evaluated(evaluation) => report.push(&paper, due, *evaluation, false),
                Outcome::Failed(error) => failed.add(&due.run, error),
                Outcome::Left => left.push(due),
            }
        }
        due.splice(..0, left);
    }
    failed.into_result()?;
    report.runs.sort_by_key(|run| runs::place(context, run.combination, run.seed));
    if report.runs.is_empty() {
        return Err(runs::none_trained());
    }
    if context.study.combo != CombinationChoice::Study && !report.untrained.is_empty() {
        bail!("not trained: {}\n\nhint: run `just train`", report.untrained.join(", "));
    }
    Ok(report)
}

/// What is evaluated already; computes nothing. Trained runs without a fresh evaluation are named as if they were not
/// trained.
///
/// With each run come its answers about the test images.
pub fn fresh(context: &Context) -> Result<(EvaluationReport, Vec<TestAnswers>)> {
    let examples = Examples::new(context);
    let features = Features::open(context, &examples)?;
    let (mut report, due) = fresh_and_due(context, &features, &examples, &paper_rows(context)?)?;
    report.untrained.extend(due.iter().map(|due| due.run.name()));
    let answers =
        report.runs.iter().map(|run| TestAnswers::read(&run.folder, &examples.test)).collect::<Result<_>>()?;
    Ok((report, answers))
}

/// A trained run without a fresh evaluation.
struct Due {
    run: Run,
    trained: Trained,
    fingerprint: Fingerprint,
}

/// All runs asked for: those with a fresh evaluation, in the report, and those without.
fn fresh_and_due(
    context: &Context,
    features: &Features,
    examples: &Examples,
    paper: &HashMap<Combination, PaperRow>,
) -> Result<(EvaluationReport, Vec<Due>)> {
    let (mut report, mut all_due) = (EvaluationReport { runs: Vec::new(), untrained: Vec::new() }, Vec::new());
    let requested = runs::requested(context, features, examples)?;
    report.untrained.extend(requested.blocked.iter().map(ToString::to_string));
    for run in requested.runs {
        let Some(trained) = run.trained(&context.memo) else {
            report.untrained.push(run.name());
            continue;
        };
        let fingerprint = fingerprint(context, examples, &run, &trained);
        let fresh = read(&run.folder)
            .filter(|evaluation| evaluation.fingerprint == fingerprint)
            .filter(|evaluation| has_answers(&run.folder, evaluation, &context.memo));
        let due = Due { run, trained, fingerprint };
        match fresh {
            Some(evaluation) => report.push(paper, due, evaluation, true),
            None => all_due.push(due),
        }
    }
    Ok((report, all_due))
}

impl EvaluationReport {
    fn push(&mut self, paper: &HashMap<Combination, PaperRow>, of: Due, evaluation: Evaluation, was_fresh: bool) {
        let Due { run: Run { combination, seed, folder, .. }, trained, .. } = of;
        let row = paper.get(&combination);
        let (paper_train, paper_test) = (row.map(|row| row.train_accuracy), row.map(|row| row.test_accuracy));
        let run = EvaluatedRun { combination, seed, folder, was_fresh, trained, evaluation, paper_train, paper_test };
        self.runs.push(run);
    }
}

/// The paper's accuracies, where ours can be set beside them.
fn paper_rows(context: &Context) -> Result<HashMap<Combination, PaperRow>> {
    let (study, layout) = (&context.study, context.dataset.layout);
    let comparable = study.data.classes == ClassSet::Six && layout != Layout::Folders;
    if study.study.paper && comparable { paper::rows() } else { Ok(HashMap::new()) }
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
    fingerprint.set("data.test", examples.digests(context).test);
    fingerprint.set("data.copies", examples.compared(context));
    fingerprint.set("eval.numerics", NUMERICS_VERSION);
    fingerprint
}

pub(crate) fn read(folder: &Path) -> Option<Evaluation> {
    read_sound_json(&folder.join(FOLDER).join(FILE), runs::MADE_ANEW)
}

/// A run's answers about the test images.
#[derive(Clone, Debug)]
pub struct TestAnswers {
    /// Indices of the images in the data set.
    pub images: Vec<usize>,
    /// Their true classes.
    pub labels: Vec<usize>,
    /// The answered classes.
    pub answers: Vec<usize>,
    /// Probabilities of the classes: (images, classes).
    pub probabilities: Vec<Vec<f64>>,
}

impl TestAnswers {
    /// Reads what the fresh evaluation of the run in `folder` left.
    fn read(folder: &Path, examples: &[Example]) -> Result<Self> {
        let path = folder.join(FOLDER).join("test_logits.npy");
        let logits: Array2<f32> = Array2::read_npy(fs_err::File::open(&path)?)
            .with_context(|| format!("cannot read `{}`; run `just eval`", path.display()))?;
        if logits.nrows() != examples.len() {
            bail!(
                "`{}` has {} rows, expected {} test images\n\nhint: run `just eval`",
                path.display(),
                logits.nrows(),
                examples.len()
            );
        }
        let of_image = |row: ndarray::ArrayView1<'_, f32>| {
            let logits = row.to_vec();
            (first_largest(&logits), softmax(&logits))
        };
        let (answers, probabilities) = logits.rows().into_iter().map(of_image).unzip();
        Ok(Self {
            images: examples.iter().map(|example| example.index).collect(),
            labels: examples.iter().map(|example| example.target.class()).collect(),
            answers,
            probabilities,
        })
    }

    /// How probable each answer is said to be.
    pub fn confidences(&self) -> impl Iterator<Item = f64> {
        self.answers.iter().zip(&self.probabilities).map(|(answer, probabilities)| probabilities[*answer])
    }

    /// Whether each answer is correct.
    pub fn correct(&self) -> Vec<bool> {
        self.answers.iter().zip(&self.labels).map(|(answer, label)| answer == label).collect()
    }
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
    answers(folder, evaluation).all(|(path, hash)| memo.is_sound(&path, hash, runs::MADE_ANEW))
}

/// A run that is being evaluated, with its place among those that are due. Its folder is locked as long as it is.
struct Member<'a> {
    place: usize,
    due: &'a Due,
    model: Model,
    _lock: Lock,
}

/// What became of a run that was due.
enum Outcome {
    Evaluated(Box<Evaluation>),
    Failed(anyhow::Error),
    /// A GPU has no room for it beside the others.
    Left,
}

/// What runs are evaluated with.
struct Evaluator<'a> {
    context: &'a Context,
    features: &'a Features,
    examples: &'a Examples,
    device: &'a Device,
    /// Test images that show what a training image shows.
    copies: HashSet<usize>,
}

impl Evaluator<'_> {
    /// Evaluates those that are due in one pass over the images, so that the cache is read once for all of them.
    fn evaluate(&self, due: &[Due]) -> Result<Vec<Outcome>> {
        let &Self { context, features, examples, device, .. } = self;
        let Some(sources) = Combination::new(due.iter().flat_map(|due| due.run.combination.iter())) else {
            return Ok(Vec::new());
        };
        let name = match due {
            [only] => only.run.name(),
            several => format!("{} runs", several.len()),
        };
        tracing::info!("evaluate {name}");
        let _features_lock = features.verify(context, sources)?;
        let allowed_bytes = Trainer::free_bytes(device).map_or(u64::MAX, |free| free / 2);
        let (mut members, mut outcomes, mut bytes) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()), 0);
        for (place, due) in due.iter().enumerate() {
            outcomes.push(Outcome::Left);
            match open_locked(&due.run, device) {
                Ok((model, lock)) => {
                    bytes += Predictors::bytes(&model, INFERENCE_BATCH);
                    if members.is_empty() || bytes <= allowed_bytes {
                        members.push(Member { place, due, model, _lock: lock });
                    }
                }
                Err(error) if !members.is_empty() && is_out_of_memory(&error) => {}
                Err(error) => outcomes[place] = Outcome::Failed(error),
            }
        }
        if members.is_empty() {
            return Ok(outcomes);
        }
        let mut predictors = Predictors::new(&members.iter().map(|member| &member.model).collect::<Vec<_>>())?;
        let reader = TokenReader::new(context, features, sources.iter(), &context.study.model)?;

        let bar = progress::bar(context.show_progress, examples.iter().count() as u64, &name, "images");
        let splits = [(Split::Train, &examples.train), (Split::Valid, &examples.valid), (Split::Test, &examples.test)];
        for member in &members {
            // Its answers are written anew from here on: what was said of the old ones is true no more.
            match fs_err::remove_file(member.due.run.folder.join(FOLDER).join(FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let mut found: Vec<Found> = members.iter().map(|_| Found::default()).collect();
        for (split, images) in splits {
            let mut logits: Vec<Vec<Vec<f32>>> = vec![Vec::with_capacity(images.len()); members.len()];
            reader.ask(images, &mut predictors, |index, found, batch| {
                logits[index].extend(found);
                if index == 0 {
                    bar.inc(batch.images as u64);
                }
                Ok(())
            })?;
            for ((member, found), logits) in members.iter().zip(&mut found).zip(logits) {
                self.score(found, &member.due.run.folder.join(FOLDER), split, images, &logits)?;
            }
        }
        bar.finish_and_clear();
        drop(predictors);

        for (Member { place, due, _lock, .. }, found) in members.into_iter().zip(found) {
            let evaluation = found.into_evaluation(due.fingerprint.clone())?;
            write_sealed_json(&due.run.folder.join(FOLDER).join(FILE), &evaluation)?;
            outcomes[place] = Outcome::Evaluated(Box::new(evaluation));
        }
        Ok(outcomes)
    }

    /// Scores the answers about the `images` of a split, and writes them to `folder`.
    fn score(
        &self,
        found: &mut Found,
        folder: &Path,
        split: Split,
        images: &[Example],
        logits: &[Vec<f32>],
    ) -> Result<()> {
        let names = self.context.study.data.classes.names();
        let class_and_answer =
            |(example, logits): (&Example, &Vec<f32>)| (example.target.class(), first_largest(logits));
        let answers: Vec<(usize, usize)> = images.iter().zip(logits).map(class_and_answer).collect();
        found.scores.insert(split, Scores::new(&names, &answers));
        if split == Split::Test {
            let apart = images.iter().zip(&answers).filter(|(example, _)| !self.copies.contains(&example.index));
            let apart: Vec<(usize, usize)> = apart.map(|(_, answer)| *answer).collect();
            found.without_copies = Some(Scores::new(&names, &apart).overall);
        }
        for name in write_answers(self.context, folder, split, images, logits, &names)? {
            let hash = self.context.memo.hash_written(&folder.join(&name))?;
            found.files.insert(name, hash);
        }
        Ok(())
    }
}

/// The trained model of `run`, whose folder nobody else works in as long as the lock lives.
pub(crate) fn open_locked(run: &Run, device: &Device) -> Result<(Model, Lock)> {
    let lock = Lock::acquire(&run.folder)?;
    Ok((Model::load(&run.folder.join(MODEL_FILE), device)?, lock))
}

/// What has been found of a run.
#[derive(Default)]
struct Found {
    scores: BTreeMap<Split, Scores>,
    without_copies: Option<Accuracy>,
    files: BTreeMap<String, ContentHash>,
}

impl Found {
    fn into_evaluation(mut self, fingerprint: Fingerprint) -> Result<Evaluation> {
        let mut take = |split| self.scores.remove(&split).ok_or_else(|| anyhow!("no scores of {split}"));
        let (train, valid, test) = (take(Split::Train)?, take(Split::Valid)?, take(Split::Test)?);
        let test_without_copies = self.without_copies.context("no scores of test images without copies")?;
        Ok(Evaluation { fingerprint, train, valid, test, test_without_copies, files: self.files })
    }
}

/// `test_logits.npy` (images, classes), `test_labels.npy` (images), `test_predictions.csv`; likewise for the
/// other splits. Gives the files' names.
fn write_answers(
    context: &Context,
    folder: &Path,
    split: Split,
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
        table.write_record(words.into_iter().chain(softmax(logits).iter().map(|p| format!("{p:.6}"))))?;
    }
    table.into_inner().map_err(|error| anyhow!("cannot write the predictions: {}", error.error()))?.commit()?;
    Ok([logits_name, labels_name, predictions_name])
}

/// Probabilities of the classes.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
