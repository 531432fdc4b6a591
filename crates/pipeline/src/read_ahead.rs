//! What every command reads, whatever the images are: the weights, and the plans of the caches that belong to them. It is read
//! while the data set is opened, since either takes one core only.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use backbone::{Weights, fetch_weights};
use shards::{Plan, ShardError};
use stage::ContentHash;
use study::{Paths, Study};

use crate::feature_cache::FeatureCache;

/// A plan with its digest, if there is one.
type StoredPlan = Result<Option<(Plan, ContentHash)>, ShardError>;

/// Weights and plans for who asks first. Whoever asks again has them read again, as they are then.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    weights: Mutex<Option<Result<Weights>>>,
    /// By the cache's folder.
    plans: Mutex<BTreeMap<PathBuf, StoredPlan>>,
}

impl ReadAhead {
    /// Reads all of it. What is wrong with it is for who asks.
    pub(crate) fn of(study: &Study, paths: &Paths) -> Self {
        let weights = read_weights(study);
        let mut plans = BTreeMap::new();
        if let Ok(weights) = &weights {
            for view in study.extract.views.each() {
                if let Ok(FeatureCache { folder, .. }) = FeatureCache::find(study, paths, weights, *view) {
                    let plan = Plan::read(&folder);
                    plans.insert(folder, plan);
                }
            }
        }
        Self { weights: Mutex::new(Some(weights)), plans: Mutex::new(plans) }
    }

    /// The configured weights, fetched if need be.
    pub(crate) fn weights(&self, study: &Study) -> Result<Weights> {
        lock(&self.weights).take().unwrap_or_else(|| read_weights(study))
    }

    /// The plan of the cache at `folder`, whose manifest describes the plan of digest `described`. Another one may have been
    /// replaced since it was read.
    pub(crate) fn plan(&self, folder: &Path, described: Option<ContentHash>) -> StoredPlan {
        match lock(&self.plans).remove(folder) {
            Some(Ok(Some((plan, digest)))) if Some(digest) == described => Ok(Some((plan, digest))),
            _ => Plan::read(folder),
        }
    }
}

fn read_weights(study: &Study) -> Result<Weights> {
    Ok(Weights::read(&fetch_weights(&study.extract.weights)?)?)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it usable: things are taken out of it whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
