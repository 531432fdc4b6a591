//! The five inputs that the study compares, and their combinations.
//!
//! Oh & Yoo (2023) feed the original image and the feature maps FM1–FM4 of a frozen ResNet-18, in all
//! 31 non-empty combinations, to a Vision Transformer. [`Source`] names one input, [`Combination`] a
//! non-empty set of them in canonical order, so that `fm2+fm1` and `fm1+fm2` are the same run everywhere:
//! in paths, in fingerprints and in reports.

mod combination;
mod source;

pub use combination::{Combination, ParseCombinationError};
pub use source::{ParseSourceError, Source};
