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

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sources::{Combination, Source};
use stage::{ContentHash, Fingerprint, Freshness};
use vit::{CHECKPOINT_FILE, Checkpoint, MODEL_FILE, TrainOutcome};

use crate::{
    Context,
    examples::{self, Examples},
    loader::Features,
};

/// Version of everything between the feature cache and the trained weights. Raised when the same seed would
/// give other weights.
const NUMERICS_VERSION: u32 = 2;

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
    /// Images trained on.
    pub train_images: usize,
    /// Images validated on.
    pub valid_images: usize,
    /// How it went.
    pub outcome: TrainOutcome,
}

/// All runs that the configuration asks for, combinations first.
pub(crate) fn requested(context: &Context, features: &Features, examples: &Examples) -> Result<Vec<Run>> {
    let shared = shared_fingerprint(context, examples)?;
    let mut runs = Vec::new();
    for combination in context.study.combinations() {
        for seed in context.study.seeds() {
            let mut fingerprint = shared.clone();
            fingerprint.set("combo", combination);
            fingerprint.set("seed", seed);
            for source in combination.iter() {
                fingerprint.set(format!("features.{source}"), feature_digest(features, source)?);
            }
            let folder = context.paths.run(combination, seed, &fingerprint.digest());
            runs.push(Run { combination, seed, fingerprint, folder });
        }
    }
    Ok(runs)
}

/// What all runs of a configuration have in common.
fn shared_fingerprint(context: &Context, examples: &Examples) -> Result<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    let data = &context.study.data;
    fingerprint.set("train.numerics", NUMERICS_VERSION);
    fingerprint.set("data.labels", data.labels);
    fingerprint.set("data.classes", data.classes);
    fingerprint.set("data.train", examples::digest(context, &examples.train));
    fingerprint.set("data.valid", examples::digest(context, &examples.valid));
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
    pub fn freshness(&self, steps: usize) -> Freshness {
        if self.trained().is_some() {
            return Freshness::Fresh;
        }
        let checkpoint = self.folder.join(CHECKPOINT_FILE);
        if checkpoint.exists() {
            let done = Checkpoint::read(&checkpoint).map_or(0, |checkpoint| checkpoint.progress.step);
            return Freshness::Partial { done: done as u64, total: steps as u64, unit: "steps".into() };
        }
        // The run of another configuration that is closest to this one says what changed.
        let siblings = self.folder.parent().map(trained_below).unwrap_or_default();
        let changes = siblings
            .iter()
            .filter_map(|folder| read_fingerprint(folder))
            .map(|old| old.changes_to(&self.fingerprint))
            .min_by_key(Vec::len);
        changes.map_or(Freshness::Missing, |changes| Freshness::Stale { changes })
    }

    /// How the training went, if it is done and the model is there.
    pub fn trained(&self) -> Option<Trained> {
        if !self.folder.join(MODEL_FILE).is_file() {
            return None;
        }
        read_trained(&self.folder)
    }

    /// The combination and seed, for messages.
    pub fn name(&self) -> String {
        format!("{} seed {}", self.combination, self.seed)
    }
}

/// Folders directly below `folder` that hold a finished training.
pub(crate) fn trained_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join(TRAIN_FILE).is_file()).collect();
    folders.sort();
    folders
}

pub(crate) fn read_fingerprint(folder: &Path) -> Option<Fingerprint> {
    serde_json::from_slice(&std::fs::read(folder.join(FINGERPRINT_FILE)).ok()?).ok()
}

pub(crate) fn read_trained(folder: &Path) -> Option<Trained> {
    serde_json::from_slice(&std::fs::read(folder.join(TRAIN_FILE)).ok()?).ok()
}

/// The configuration of a run as JSON, without what changes no result.
pub(crate) fn resolved(context: &Context, run: &Run) -> Result<Value> {
    let mut value = serde_json::to_value(&context.study)?;
    value["combo"] = run.combination.to_string().into();
    value["seed"] = run.seed.into();
    Ok(value)
}
