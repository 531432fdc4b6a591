//! A run: one combination and seed under one configuration, in a folder of its own.
//!
//! ```text
//! fingerprint.json       everything that the trained weights depend on
//! study.json             the resolved configuration
//! metrics.jsonl          one line per step and validation
//! checkpoint.safetensors weights, optimiser, step, random numbers
//! model.safetensors      the trained weights
//! train.json             written last: how training went
//! evaluation/            what `eval` leaves
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sources::{Combination, Source};
use stage::{ContentHash, Fingerprint, Freshness, HashMemo, read_sound_json};
use vit::{CHECKPOINT_FILE, Checkpoint, ClassWeights, METRICS_FILE, MODEL_FILE, TrainOutcome, VitError};

use crate::{Context, examples::Examples, features::Features};

/// Version of everything between the feature cache and the trained weights. Raised when the same seed would
/// give other weights.
const NUMERICS_VERSION: u32 = 5;

/// File names in a run's folder.
pub(crate) const FINGERPRINT_FILE: &str = "fingerprint.json";
pub(crate) const STUDY_FILE: &str = "study.json";
pub(crate) const TRAIN_FILE: &str = "train.json";

/// One run of the current configuration.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// What its weights depend on.
    pub fingerprint: Fingerprint,
    /// Where it lies.
    pub folder: PathBuf,
}

/// `train.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Hash of `model.safetensors`.
    pub model: ContentHash,
    /// Hash of `metrics.jsonl`.
    pub metrics: ContentHash,
    /// Images trained on.
    pub train_images: usize,
    /// Images validated on.
    pub valid_images: usize,
    /// How it went.
    pub outcome: TrainOutcome,
}

impl Trained {
    /// The files that training left, with their hashes.
    pub(crate) const fn files(&self) -> [(&'static str, ContentHash); 2] {
        [(MODEL_FILE, self.model), (METRICS_FILE, self.metrics)]
    }
}

/// The runs that a configuration asks for.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Those whose features are there, combinations first.
    pub(crate) runs: Vec<Run>,
    /// Combinations that need features which are not extracted.
    pub(crate) blocked: Vec<Combination>,
    /// These features, in canonical order.
    pub(crate) missing: Vec<Source>,
}

impl Requested {
    /// The runs, if none is blocked.
    pub(crate) fn complete(self) -> Result<Vec<Run>> {
        if self.missing.is_empty() { Ok(self.runs) } else { bail!(self.complaint()) }
    }

    /// Which features are missing, and what to do.
    pub(crate) fn complaint(&self) -> String {
        let missing: Vec<&str> = self.missing.iter().map(|source| source.name()).collect();
        let missing = missing.join("+");
        let needing = match self.blocked.len() {
            1 => "1 combination needs".to_owned(),
            several => format!("{several} combinations need"),
        };
        format!("{needing} {missing}, not extracted yet\n\nhint: run `just extract extract.features={missing}`")
    }
}

/// All runs that the configuration asks for.
pub(crate) fn requested(context: &Context, features: &Features, examples: &Examples) -> Result<Requested> {
    let configuration = Configuration::of(context, features, examples)?;
    let (mut runs, mut blocked) = (Vec::new(), Vec::new());
    for combination in context.study.combinations() {
        if !configuration.has_features_of(combination) {
            blocked.push(combination);
            continue;
        }
        for seed in context.study.seeds() {
            runs.push(configuration.run(combination, seed)?);
        }
    }
    let needed = |source: &Source| blocked.iter().any(|combination| combination.contains(*source));
    let missing = Source::FEATURE_MAPS.into_iter().filter(|map| !features.has(*map) && needed(map)).collect();
    Ok(Requested { runs, blocked, missing })
}

/// What all runs of a configuration have in common.
pub(crate) struct Configuration<'a> {
    context: &'a Context,
    features: &'a Features,
    fingerprint: Fingerprint,
}

impl<'a> Configuration<'a> {
    pub(crate) fn of(context: &'a Context, features: &'a Features, examples: &Examples) -> Result<Self> {
        Ok(Self { context, features, fingerprint: shared_fingerprint(context, examples)? })
    }

    /// Whether the feature maps of `combination` are there.
    pub(crate) fn has_features_of(&self, combination: Combination) -> bool {
        combination.feature_maps().all(|map| self.features.has(map))
    }

    /// Its run of `combination` and `seed`.
    pub(crate) fn run(&self, combination: Combination, seed: u64) -> Result<Run> {
        let Self { context, features, fingerprint } = self;
        let mut fingerprint = fingerprint.clone();
        fingerprint.set("combo", combination);
        fingerprint.set("seed", seed);
        for source in combination.iter() {
            fingerprint.set(format!("features.{source}"), feature_digest(features, source)?);
            if let Some(flipped) = &features.flipped {
                fingerprint.set(format!("features.{source}.flip"), feature_digest(flipped, source)?);
            }
        }
        let folder = context.paths.run(combination, seed, &fingerprint.digest());
        Ok(Run { combination, seed, fingerprint, folder })
    }
}

/// What is said where trained runs are asked for and there is none.
pub(crate) fn none_trained() -> Error {
    anyhow!("no run of this configuration is trained\n\nhint: run `just train`")
}

/// Where a run stands in the configuration's order: combinations first, then seeds.
pub(crate) fn place(context: &Context, combination: Combination, seed: u64) -> (Option<usize>, Option<usize>) {
    let (combinations, seeds) = (context.study.combinations(), context.study.seeds());
    let combination = combinations.iter().position(|one| *one == combination);
    (combination, seeds.iter().position(|one| *one == seed))
}

fn shared_fingerprint(context: &Context, examples: &Examples) -> Result<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    let data = &context.study.data;
    fingerprint.set("train.numerics", NUMERICS_VERSION);
    fingerprint.set("train.precision", context.study.train.precision);
    // Set only where it is used, so that runs from before it was there stay what they are.
    if context.study.loss.weights != ClassWeights::None {
        fingerprint.set("loss.weights", context.study.loss.weights);
    }
    fingerprint.set("data.labels", data.labels);
    fingerprint.set("data.classes", data.classes);
    let digests = examples.digests(context);
    fingerprint.set("data.train", digests.train);
    fingerprint.set("data.valid", digests.valid);
    for (table, values) in [
        ("model", serde_json::to_value(&context.study.model)?),
        ("recipe", serde_json::to_value(&context.study.recipe)?),
    ] {
        for (key, value) in values.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fingerprint.set(format!("{table}.{key}"), text);
        }
    }
    Ok(fingerprint)
}

/// Hash of what a source's tokens depend on besides the images: how the features were computed, and the
/// moments that standardise them.
fn feature_digest(features: &Features, source: Source) -> Result<ContentHash> {
    let moments = serde_json::to_vec(features.moments(source)?)?;
    Ok(ContentHash::of_parts([features.manifest.fingerprint.digest().as_bytes().as_slice(), &moments]))
}

impl Run {
    /// How the training stands.
    pub fn freshness(&self, memo: &HashMemo, steps: usize) -> Freshness {
        if self.trained(memo).is_some() {
            return Freshness::Fresh;
        }
        if self.folder.join(CHECKPOINT_FILE).exists() {
            // A damaged one is removed when training begins anew.
            let done = Checkpoint::read(&self.folder).ok().flatten().map_or(0, |checkpoint| checkpoint.progress.step);
            return Freshness::Partial { done: done as u64, total: steps as u64, unit: "steps".into() };
        }
        // The run of another configuration that is closest to this one says what changed. Another seed is no change.
        let siblings = self.folder.parent().map(trained_below).unwrap_or_default();
        let seed = self.seed.to_string();
        let changes = siblings
            .iter()
            .filter_map(|folder| read_fingerprint(folder))
            .filter(|old| old.get("seed") == Some(&seed))
            .map(|old| old.changes_to(&self.fingerprint))
            .min_by_key(Vec::len);
        changes.map_or(Freshness::Missing, |changes| Freshness::Stale { changes })
    }

    /// How the training went, if it is done, of this very configuration, and the model and the metrics are there unharmed.
    pub fn trained(&self, memo: &HashMemo) -> Option<Trained> {
        let trained = read_trained(&self.folder)?;
        let sound =
            trained.files().into_iter().all(|(name, hash)| memo.is_sound(&self.folder.join(name), hash, MADE_ANEW))
                && read_sound_json::<Value>(&self.folder.join(STUDY_FILE), MADE_ANEW).is_some();
        (sound && read_fingerprint(&self.folder).as_ref() == Some(&self.fingerprint)).then_some(trained)
    }

    /// Removes a checkpoint that is damaged, or whose metrics are, so that the run begins anew: nothing else can be done
    /// with it.
    pub(crate) fn remove_damaged_checkpoint(&self) -> Result<()> {
        match Checkpoint::read(&self.folder) {
            Err(error @ VitError::Damaged { .. }) => {
                tracing::warn!("{error}; the checkpoint is removed, and {} begins anew", self.name());
                Ok(fs_err::remove_file(self.folder.join(CHECKPOINT_FILE))?)
            }
            // Whatever else is wrong will be told when the run resumes.
            _ => Ok(()),
        }
    }

    /// The combination and seed, for messages.
    pub fn name(&self) -> String {
        format!("{} seed {}", self.combination, self.seed)
    }
}

/// Folders directly below `folder` that hold a finished training.
fn trained_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join(TRAIN_FILE).is_file()).collect();
    folders.sort();
    folders
}

/// What follows from damage to a file: whatever made it does so again.
pub(crate) const MADE_ANEW: &str = "what it belongs to is made anew";

pub(crate) fn read_fingerprint(folder: &Path) -> Option<Fingerprint> {
    read_sound_json(&folder.join(FINGERPRINT_FILE), MADE_ANEW)
}

pub(crate) fn read_trained(folder: &Path) -> Option<Trained> {
    read_sound_json(&folder.join(TRAIN_FILE), MADE_ANEW)
}

/// The configuration of a run as JSON, without what looks at results only.
pub(crate) fn resolved(context: &Context, run: &Run) -> Result<Value> {
    let mut value = serde_json::to_value(&context.study)?;
    if let Some(tables) = value.as_object_mut() {
        tables.retain(|table, _| !["export", "eval", "report", "figure", "predict"].contains(&table.as_str()));
    }
    value["combo"] = run.combination.to_string().into();
    value["seed"] = run.seed.into();
    Ok(value)
}
