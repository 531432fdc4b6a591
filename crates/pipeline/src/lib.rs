//! The three stages of a study, in the order in which an image passes them.
//!
//! ```text
//! dataset ─► extraction (backbone, once) ─► feature cache ─► training (many runs) ─► evaluation
//!               selection, feature_pass                        features, examples,      scores, summary
//!                                                              tokens, loader
//! ```
//!
//! Every stage knows by its fingerprint whether its result is fresh ([`status`](mod@status)); [`verify`] reads
//! everything again, [`clean`] removes what no current configuration uses.

mod calibration;
pub mod clean;
mod context;
mod copies;
pub mod evaluation;
mod examples;
pub mod export;
pub mod extraction;
mod failed;
mod feature_cache;
mod feature_pass;
mod features;
mod inputs;
pub mod inspect;
mod loader;
mod message;
mod out_of_memory;
pub mod paper;
mod passes;
pub mod predict;
mod progress;
mod read_ahead;
pub mod runs;
pub mod scores;
mod selection;
pub mod single;
pub mod status;
pub mod summary;
mod tokens;
pub mod training;
pub mod transfer;
pub mod verify;

pub use context::Context;
pub use copies::CopyCounts;
pub use feature_cache::FeatureCache;
pub use message::message;
pub use out_of_memory::memory_hint;
