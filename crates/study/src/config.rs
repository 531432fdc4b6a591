use std::path::PathBuf;

use backbone::{Engine, Precision, Views};
use dataset::{ClassName, ClassSet, LabelRule, LabelSource, Layout};
use serde::{Deserialize, Serialize};
use shards::Dtype;
use sources::Combination;
use vit::{ClassWeights, ModelConfig, Recipe};

use crate::{CombinationChoice, DeviceChoice};

/// A whole, validated configuration. Field names are the keys; [`KEYS`](crate::KEYS) describes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// What a command works on.
    pub combo: CombinationChoice,
    /// Seed of a single run; `study.seeds` when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Where to compute.
    pub device: DeviceChoice,
    /// CPU threads; 0 is one per core.
    pub threads: usize,
    /// The images and their labels.
    pub data: DataConfig,
    /// Where results are kept.
    pub cache: CacheConfig,
    /// The backbone pass.
    pub extract: ExtractConfig,
    /// Features for other programs.
    pub export: ExportConfig,
    /// The Vision Transformer.
    pub model: ModelConfig,
    /// How it is trained.
    pub recipe: Recipe,
    /// What the model learns from its mistakes.
    pub loss: LossConfig,
    /// What a training run does besides.
    pub train: TrainConfig,
    /// What belongs to the study.
    pub study: StudyConfig,
    /// Another data set to judge the runs on.
    pub eval: EvalConfig,
    /// The report.
    pub report: ReportConfig,
    /// Pictures of feature maps.
    pub figure: FigureConfig,
    /// Answers about single images.
    pub predict: PredictConfig,
}

/// `data.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of the data set.
    pub dir: PathBuf,
    /// How it lies there.
    pub layout: Layout,
    /// Which label file counts.
    pub label_source: LabelSource,
    /// How votes become labels.
    pub labels: LabelRule,
    /// Six or eight classes.
    pub classes: ClassSet,
    /// Leave bad input out, and list it.
    pub skip_bad: bool,
}

/// `cache.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Folder of all results.
    pub dir: PathBuf,
}

/// `extract.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractConfig {
    /// File or model on the Hub.
    pub weights: String,
    /// Which feature maps to store.
    pub features: Combination,
    /// How values are stored.
    pub dtype: Dtype,
    /// What runs the convolutions.
    pub engine: Engine,
    /// What the convolutions multiply.
    pub precision: Precision,
    /// How each image is looked at.
    pub views: Views,
    /// Images per batch; 0 for what goes well on the device.
    pub batch: usize,
    /// Images per shard.
    pub shard_images: usize,
    /// Number of images, shared out over the splits; 0 is all.
    pub limit: usize,
}

/// `export.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// Folder for `.npy` files; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npy: Option<PathBuf>,
}

/// `loss.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// How much an image counts by its class.
    pub weights: ClassWeights,
}

/// `train.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the step multiplies.
    pub precision: vit::Precision,
    /// Memory in GiB for runs that are trained together; 0 is half of what is free.
    pub memory_gib: f64,
    /// Steps between two validations.
    pub validate_every: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
}

/// `study.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// The combinations.
    pub combos: Vec<Combination>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Other configurations of the same study, each as overrides with spaces between them.
    pub variants: Vec<String>,
    /// Whether the paper's accuracies are set beside ours. They are those of FERPlus with six classes, so they are
    /// left out in any case with other classes and with class-named folders.
    pub paper: bool,
}

/// `eval.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Its folder, with a folder for each class; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// What its class folders' names mean where the usual names do not say it.
    pub class_names: Vec<ClassName>,
}

/// `report.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Its folder; beside the runs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// `figure.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureConfig {
    /// Image files, or images of the data set by their ids; one test image of each class when there are none.
    pub images: Vec<PathBuf>,
    /// Strongest channels of each map that are shown beside the mean of all.
    pub channels: usize,
}

/// `predict.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictConfig {
    /// Image files and folders of such.
    pub image: Vec<PathBuf>,
}

impl Default for FigureConfig {
    fn default() -> Self {
        Self { images: Vec::new(), channels: 3 }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dir: "data/ferplus".into(),
            layout: Layout::default(),
            label_source: LabelSource::default(),
            labels: LabelRule::default(),
            classes: ClassSet::default(),
            skip_bad: false,
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { dir: "cache".into() }
    }
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self {
            weights: "timm/resnet18.tv_in1k".into(),
            features: Combination::FEATURE_MAPS,
            dtype: Dtype::default(),
            engine: Engine::default(),
            precision: Precision::default(),
            views: Views::default(),
            batch: 0,
            shard_images: 256,
            limit: 0,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { precision: vit::Precision::default(), memory_gib: 0.0, validate_every: 500, checkpoint_every: 500 }
    }
}

impl Default for StudyConfig {
    fn default() -> Self {
        Self { combos: Combination::all(), seeds: vec![0], variants: Vec::new(), paper: true }
    }
}

impl Study {
    /// The combinations to work on, each once.
    pub fn combinations(&self) -> Vec<Combination> {
        match &self.combo {
            CombinationChoice::Study => each_once(&self.study.combos),
            CombinationChoice::All => Combination::all(),
            CombinationChoice::These(combinations) => each_once(combinations),
        }
    }

    /// The seeds to work on, each once.
    pub fn seeds(&self) -> Vec<u64> {
        self.seed.map_or_else(|| each_once(&self.study.seeds), |seed| vec![seed])
    }
}

/// `values` in their order without repetitions.
fn each_once<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut once = Vec::with_capacity(values.len());
    for value in values {
        if !once.contains(value) {
            once.push(*value);
        }
    }
    once
}
