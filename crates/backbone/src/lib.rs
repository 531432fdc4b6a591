//! The frozen, pretrained ResNet-18 and its four feature maps.
//!
//! An image passes [`preprocess`] (resize to 224×224, ImageNet mean and standard deviation), then the network;
//! the outputs of the four stages, after their last ReLU, are the feature maps FM1–FM4 of Oh & Yoo (2023).
//! [`Weights`] come from the Hugging Face Hub or a file and are folded with their batch norms into a
//! [`Network`] of plain convolutions, which three engines run:
//!
//! - [`Engine::Native`]: this project's CPU kernels, channels-last, one thread per few images;
//! - [`Engine::Candle`]: candle's convolutions, the reference, on any device;
//! - [`Engine::Cudnn`]: cuDNN's convolutions on NVIDIA GPUs, channels-last, in 32-bit floats and in bfloat16.
//!
//! The native engine also computes in other [`Precision`]s: in bfloat16 ([`Backbone::bf16`]), and, as a sibling, in 8-bit
//! integers that a [`Calibration`] describes ([`Backbone::quantised`]).
//!
//! All give (images, side, side, channels) in 32-bit floats: channels-last, because a token of the Vision
//! Transformer (a square patch of all channels) is then a few contiguous runs.

mod archive;
mod backbone;
mod calibration;
mod candle_engine;
#[cfg(any(feature = "cudnn", test))]
mod channels_last;
mod crossing;
mod feature_sink;
mod fold;
mod formats;
mod group;
mod hub;
mod native_engine;
mod network;
mod pickle;
mod precision;
pub mod preprocess;
mod quantised_engine;
mod quiet_panic;
mod stem;
mod view;
mod weights;

pub use backbone::{Backbone, BackboneError, Engine, KernelTimes, NUMERICS_VERSION};
pub use calibration::{BlockRanges, Calibration, ChannelRanges};
pub use feature_sink::{FeatureBatch, FeatureSink};
pub use fold::FoldedConv;
pub use hub::fetch_weights;
pub use network::{Block, Network};
pub use precision::Precision;
pub use view::{View, Views};
pub use weights::{Weights, WeightsError};
