//! The Vision Transformer of the study: tokens of one or several sources in, expression logits out.
//!
//! [`ModelConfig`] and [`Recipe`] hold every choice and check it; [`Model`] is a pre-norm ViT (Dosovitskiy
//! et al. 2021, <https://arxiv.org/abs/2010.11929>) over the sources' token grids; [`train()`] is the loop,
//! with metrics as JSON lines, checkpoints and resuming; [`Model::load`] and [`Model::logits`] use the
//! result.
//!
//! Everything random (initial weights, dropout, drop-path) is drawn from one seeded generator, [`Draws`],
//! and every sum has a fixed order: the same seed, data and machine give the same weights bit for bit.
//!
//! On the CPU the training step is written out on the project's kernels (`native`), and on NVIDIA GPUs as well (`cuda`); for
//! what that lacks, and as the reference that the tests compare with, it is candle's autograd over `network`.
//!
//! In candle 0.11, `candle_nn::LayerNorm` and `softmax_last_dim` have no backward and drop the gradient
//! without a word. The module `ops` gives such ops a gradient; the tests compare all gradients with finite
//! differences and with PyTorch.

mod adam;
mod attention;
mod batch;
mod checkpoint;
mod class_weights;
mod collapse;
mod config;
mod courier;
#[cfg(any(feature = "cuda", test))]
mod cuda;
mod draws;
mod embed;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod holding;
mod layers;
mod loss;
mod metrics;
mod model;
mod native;
mod network;
mod noise;
mod ops;
mod parameters;
mod precision;
mod predictor;
mod predictors;
mod recipe;
mod tensor_file;
mod train;
mod trainer;
mod validation;

pub use adam::{Adam, gradient_norm};
pub use batch::{Batch, Tokens};
pub use checkpoint::{CHECKPOINT_FILE, Checkpoint, DueCheckpoint, Progress};
pub use class_weights::ClassWeights;
pub use collapse::{COLLAPSE_MARGIN, collapsed, entropy};
pub use config::{Collapse, Fuse, ModelConfig, Pool};
pub use courier::{Courier, Sent};
pub use draws::Draws;
pub use error::VitError;
pub use holding::{Held, Holding};
pub use loss::{Loss, cross_entropy};
pub use metrics::{METRICS_FILE, StepRecord, ValidationRecord, Written};
pub use model::{About, Input, Model};
pub use noise::Noise;
pub use parameters::Parameters;
pub use precision::Precision;
pub use predictor::Predictor;
pub use predictors::{Answers, Predictors};
pub use recipe::{Optimizer, Recipe, RecipeName, Schedule};
pub use train::{Batches, BoxError, MODEL_FILE, Run, TrainOutcome, Training, train};
pub use trainer::{Gradient, Trainer};
pub use validation::{Tally, Validation, first_largest};
