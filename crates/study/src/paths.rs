use std::path::{Path, PathBuf};

use sources::Combination;
use stage::ContentHash;

use crate::Study;

/// Where a data set's results lie:
///
/// ```text
/// cache/CACHEDIR.TAG
/// cache/ferplus/
///   audit.json                         what is worth knowing about the data set
///   copies.json                        validation and test images that show what a training image shows
///   hashes                             remembered content hashes
///   inputs.json                        hashes of the tables of labels and the weights
///   calibration-9c0d1e2f.json          what 8-bit integers stand for, one per weights
///   features-v2/resnet18-f16-1a2b3c4d/ one feature cache per weights, preprocessing and dtype
///   runs-v2/fm1+fm2/seed0-5e6f7a8b/    one run per combination, seed and everything else that matters
///   report/index.html                  the report, its tables and figures
/// ```
#[derive(Clone, Debug)]
pub struct Paths {
    cache: PathBuf,
    data_set: PathBuf,
    report: PathBuf,
}

impl Paths {
    /// The places that `study` uses. A data set goes by the name of its folder.
    pub fn new(study: &Study) -> Self {
        let absolute = std::path::absolute(&study.data.dir).unwrap_or_else(|_| study.data.dir.clone());
        let name = absolute.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned());
        let data_set = study.cache.dir.join(name);
        let report = study.report.dir.clone().unwrap_or_else(|| data_set.join("report"));
        Self { cache: study.cache.dir.clone(), data_set, report }
    }

    /// Folder of all results.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Folder of the data set's results.
    pub fn data_set(&self) -> &Path {
        &self.data_set
    }

    /// Folder of the report.
    pub fn report(&self) -> &Path {
        &self.report
    }

    /// Remembered content hashes.
    pub fn hashes(&self) -> PathBuf {
        self.data_set.join("hashes")
    }

    /// What the files were that the features and labels came from.
    pub fn inputs(&self) -> PathBuf {
        self.data_set.join("inputs.json")
    }

    /// The data audit.
    pub fn audit(&self) -> PathBuf {
        self.data_set.join("audit.json")
    }

    /// Validation and test images that show what a training image shows.
    pub fn copies(&self) -> PathBuf {
        self.data_set.join("copies.json")
    }

    /// The calibration of this fingerprint.
    pub fn calibration(&self, fingerprint: &ContentHash) -> PathBuf {
        self.data_set.join(format!("calibration-{}.json", fingerprint.short()))
    }

    /// Folder of all feature caches.
    pub fn all_features(&self) -> PathBuf {
        self.data_set.join(format!("features-v{}", shards::FORMAT_VERSION))
    }

    /// The feature cache of this fingerprint.
    pub fn features(&self, dtype: shards::Dtype, fingerprint: &ContentHash) -> PathBuf {
        self.all_features().join(format!("resnet18-{dtype}-{}", fingerprint.short()))
    }

    /// Folder of all runs.
    pub fn all_runs(&self) -> PathBuf {
        self.data_set.join("runs-v2")
    }

    /// Folder of a combination's runs.
    pub fn runs_of(&self, combination: Combination) -> PathBuf {
        self.all_runs().join(combination.to_string())
    }

    /// Folder of the run of this fingerprint.
    pub fn run(&self, combination: Combination, seed: u64, fingerprint: &ContentHash) -> PathBuf {
        self.runs_of(combination).join(format!("seed{seed}-{}", fingerprint.short()))
    }

    /// The seed of the run whose folder has this name; none if no run's has.
    pub fn seed(folder_name: &str) -> Option<u64> {
        folder_name.strip_prefix("seed")?.split_once('-')?.0.parse().ok()
    }
}
