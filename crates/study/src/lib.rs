//! The configuration of a study: what is in `study.toml`, what the command line overrides, what it all means.
//!
//! [`Study::load`] lays four levels over each other: the built-in defaults, those of the chosen recipe, the
//! file, and the overrides `key=value`. An unknown key or value is an error that names the valid ones and the
//! nearest. [`KEYS`] describes every key; the binaries' `--help` is made from it.

mod choices;
mod config;
mod error;
mod keys;
mod load;
mod paths;

pub use choices::{CombinationChoice, DeviceChoice};
pub use config::{
    CacheConfig, DataConfig, EvalConfig, ExportConfig, ExtractConfig, FigureConfig, LossConfig, PredictConfig,
    ReportConfig, Study, StudyConfig, TrainConfig,
};
pub use error::StudyError;
pub use keys::{KEYS, Key, Stage, help};
pub use load::key_of;
pub use paths::Paths;
