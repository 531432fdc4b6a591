//! The stages.
mod context;
pub mod export;
pub mod extraction;
mod feature_pass;
mod progress;
pub mod report;
mod selection;
pub use context::Context;
